"""The checks of deploy.py for the admission webhook: its manifests, and `bursar inject` as it answers over TLS.

Reviews are posted as an API server posts them. What comes back is applied by `jsonpatch` (not by us), validated as a
Pod by Kubernetes' schemas, and compared with deploy/kubernetes/sidecar.yaml, which is written by hand.
"""
import base64, contextlib, copy, http.client, json, pathlib, re, shlex, socket, ssl, tempfile, urllib.request
import deploy, deploy_live
from deploy import run

GUIDE = "docs/guide/injection.md"
NAME = "bursar-inject.bursar.svc"
SYSTEM = {"kube-system"}
SECURE = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "runAsUser": 65532,
          "runAsGroup": 65532, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
# Longest time that answers under way get at the end, in proxy/src/inject/server.rs.
LAST_ANSWERS_SECONDS = 10


# === manifests

def is_webhook(documents):
    return any(document["kind"] == "MutatingWebhookConfiguration" for document in documents)


def check_webhook(context, documents, where, namespace):
    """Our own rules for the webhook's objects; returns them by kind."""
    say = lambda condition, text: context.expect(condition, f"{where}: {text}")
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    [workload], [service], [config] = (by_kind[kind] for kind in ("Deployment", "Service", "MutatingWebhookConfiguration"))
    check_workload(say, workload, by_kind)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selects = lambda selector: selector.items() <= labels.items()
    [container] = workload["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    say(selects(service["spec"]["selector"]), "the Service selects no pod of the webhook")
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for document in by_kind.get(kind, []):
            selector = document["spec"].get("selector") or document["spec"]["podSelector"]
            say(selects(selector["matchLabels"]), f"the {kind} selects no pod of the webhook")
    for policy in by_kind.get("NetworkPolicy", []):
        opened = [(port["port"], "to some" if rule.get("from") else "to all") for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        say(opened == [("https", "to all"), ("metrics", "to some")], f"the NetworkPolicy opens {opened}")
        say("Egress" in policy["spec"]["policyTypes"] and not policy["spec"].get("egress"), "the NetworkPolicy lets the webhook call others")
    paths = {}
    for webhook in config["webhooks"]:
        target = webhook["clientConfig"]["service"]
        name, path = webhook["name"], target["path"]
        paths[path] = webhook
        say(target["name"] == service["metadata"]["name"] and target["namespace"] == namespace, f"{name}: calls {target}")
        say(target["port"] in {port["port"] for port in service["spec"]["ports"]}, f"{name}: the Service has no port {target['port']}")
        say(all(port["targetPort"] in ports for port in service["spec"]["ports"]), "the Service names a port that no container has")
        say(all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", part) for part in path[1:].split("/")), f"{name}: {path} is no path that Kubernetes takes")
        say(webhook["sideEffects"] == "None" and webhook["admissionReviewVersions"] == ["v1"], f"{name}: sideEffects or versions")
        say(webhook["reinvocationPolicy"] == "IfNeeded", f"{name}: reinvocationPolicy")
        say(webhook["timeoutSeconds"] <= 10, f"{name}: a pod may wait for {webhook['timeoutSeconds']} s")
        say("failurePolicy" in where or webhook["failurePolicy"] == "Ignore", f"{name}: the webhook can be the outage: failurePolicy {webhook['failurePolicy']}")
        say(webhook["rules"] == [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "Namespaced"}], f"{name}: rules")
        out = {value for each in webhook["namespaceSelector"].get("matchExpressions", [])
               if each["key"] == "kubernetes.io/metadata.name" and each["operator"] == "NotIn" for value in each["values"]}
        say(out >= SYSTEM | {namespace}, f"{name}: asks about pods of {sorted((SYSTEM | {namespace}) - out)}")
    say(set(paths) == {"/mutate", "/mutate/namespace"}, f"the paths are {sorted(paths)}")
    wants_label = lambda webhook: webhook["namespaceSelector"].get("matchLabels") == {"bursar.dev/inject": "enabled"} or any(
        each == {"key": "bursar.dev/inject", "operator": "In", "values": ["enabled"]} for each in webhook["namespaceSelector"]["matchExpressions"])
    say(wants_label(paths["/mutate/namespace"]) and not wants_label(paths["/mutate"]), "the label of namespaces chooses the wrong webhook")
    say("bursar.dev/inject" in paths["/mutate"]["matchConditions"][0]["expression"], "/mutate is asked about every pod")
    for certificate in by_kind.get("Certificate", []):
        spec, name = certificate["spec"], certificate["metadata"]["name"]
        volumes = {volume["secret"]["secretName"] for volume in workload["spec"]["template"]["spec"]["volumes"] if "secret" in volume}
        say(spec["secretName"] in volumes, "the Certificate's Secret is not mounted")
        say(spec["dnsNames"] == [f"{service['metadata']['name']}.{namespace}.svc"], f"the Certificate is for {spec['dnsNames']}")
        say(config["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == f"{namespace}/{name}", "cert-manager is not told where the authority goes")
        issuers = {issuer["metadata"]["name"] for issuer in by_kind.get("Issuer", [])}
        say(spec["issuerRef"]["name"] in issuers or "issuerRef" in where, f"there is no issuer {spec['issuerRef']['name']}")
    return by_kind


def check_workload(say, workload, by_kind):
    spec = workload["spec"]["template"]["spec"]
    [container] = spec["containers"]
    for key, value in SECURE.items():
        say(container.get("securityContext", {}).get(key) == value, f"securityContext.{key} is not {value!r}")
    say("memory" in container.get("resources", {}).get("limits", {}), "there is no memory limit")
    say(spec.get("automountServiceAccountToken") is False, "the service account's token is mounted, which nobody uses")
    say(workload["spec"]["replicas"] >= 2, "one pod alone is an interruption at each roll")
    say("@sha256:" in container["image"] or re.search(r":(?!latest$)[^:/]+$", container["image"]), f"the image {container['image']} is not pinned")
    for probe, path in {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        asked = container.get(probe, {}).get("httpGet", {})
        say(asked == {"path": path, "port": "https", "scheme": "HTTPS"}, f"{probe} asks {asked}")
    stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    say(spec["terminationGracePeriodSeconds"] >= stop + LAST_ANSWERS_SECONDS, f"it is killed after {spec['terminationGracePeriodSeconds']} s")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port, (option, usual) in {"https": ("--listen", "0.0.0.0:8443"), "metrics": ("--metrics-listen", "nowhere:0")}.items():
        options = dict(zip(container["args"], container["args"][1:]))
        listens = int(options.get(option, usual).rsplit(":", 1)[1])
        say(ports.get(port) == listens, f"the port {port} is {ports.get(port)}, and {option} is {listens}")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    config = pathlib.PurePosixPath(container["args"][container["args"].index("--config") + 1])
    names = {entry["metadata"]["name"]: entry["data"] for entry in by_kind.get("ConfigMap", [])}
    mounted = volumes[mounts[str(config.parent)]]["configMap"]["name"]
    say(config.name in names.get(mounted, {}), f"{config} is in no ConfigMap")
    say("secret" in volumes[mounts["/run/secrets/bursar-inject"]], "the certificate is not where `bursar inject` looks for it")


def settings_of(documents):
    """What `bursar inject` is to read, of the documents of a webhook."""
    return next(document["data"]["inject.yaml"] for document in documents if document["kind"] == "ConfigMap")


# === the webhook as it answers

def make_certificates(context, folder):
    """By the commands of the guide, so that they are known to work."""
    folder.mkdir()
    blocks = re.findall(r"```sh\n(.*?)```", context.text(GUIDE), re.S)
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    commands = [line for line in lines if line.startswith("openssl ")]
    if not context.expect(len(commands) >= 3, f"{GUIDE}: there are {len(commands)} commands for certificates"):
        raise RuntimeError("no certificates")
    for command in commands:
        done = run(*shlex.split(command), cwd=folder)
        if not context.expect(done.returncode == 0, f"{GUIDE}: `{command}`: {done.stderr.strip()[-300:]}"):
            raise RuntimeError("no certificates")
    return folder


class Webhook:
    """`bursar inject` as it runs, and how an API server would ask it."""

    def __init__(self, address, metrics, authority):
        self.host, port = address.rsplit(":", 1)
        self.port, self.metrics, self.authority = int(port), metrics, authority

    def metric(self, name):
        """The value of a metric, as Prometheus reads it; None where it is not there."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=20) as reply:
            page = reply.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.M)
        return found and float(found[1])

    def ask(self, method, path, body=b"", kind="application/json"):
        trust = ssl.create_default_context(cafile=self.authority)
        trust.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        with socket.create_connection((self.host, self.port), timeout=20) as plain:
            with trust.wrap_socket(plain, server_hostname=NAME) as secure:
                connection = http.client.HTTPConnection(NAME)
                connection.sock = secure
                connection.request(method, path, body, {"content-type": kind, "connection": "close"} if body else {})
                reply = connection.getresponse()
                return reply.status, reply.read()

    def review(self, pod, path="/mutate", **more):
        request = {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop", "dryRun": False,
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "oldObject": None,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"}, "object": pod, **more,
        }
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
        status, answer = self.ask("POST", path + "?timeout=5s", body)
        answer = json.loads(answer)
        if status != 200 or answer["response"]["uid"] != request["uid"] or answer["kind"] != "AdmissionReview":
            raise RuntimeError(f"a review was answered with {status}: {answer}")
        return answer["response"]


@contextlib.contextmanager
def webhook(context, settings, certificates):
    """A webhook with these settings; yields it and its process."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    (folder / "inject.yaml").write_text(settings)
    command = [context.bursar, "inject", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--config", folder / "inject.yaml",
               "--tls-cert", certificates / "tls.crt", "--tls-key", certificates / "tls.key"]
    with deploy_live.process(command, folder / "log") as child:
        listens = lambda: re.search(r'"message":"bursar injects".*?"listen":"([\d.]+:\d+)".*?"metrics":"([\d.]+:\d+)"', (folder / "log").read_text())
        found = deploy_live.until(lambda: listens() or child.poll() is not None)
        if found is True or not found:
            raise RuntimeError(f"the webhook did not start: {(folder / 'log').read_text()[-400:]}")
        yield Webhook(found[1], found[2], certificates / "ca.crt"), child


def patched(pod, response):
    import jsonpatch
    if "patch" not in response:
        return pod
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))


def pod_of(workload):
    """A pod as a ReplicaSet makes it and as the webhook sees it: with Kubernetes' defaults and the account's token."""
    template = copy.deepcopy(workload["spec"]["template"])
    spec = template["spec"]
    spec.update({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {},
                 "schedulerName": "default-scheduler", "serviceAccountName": "default", "serviceAccount": "default"})
    token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    spec.setdefault("volumes", []).append({"name": "kube-api-access-7x2xq", "projected": {"defaultMode": 420, "sources": [token]}})
    for container in spec["containers"]:
        container.setdefault("volumeMounts", []).append({"name": "kube-api-access-7x2xq", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
        container.update({"imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log", "resources": {}})
    metadata = {"generateName": f"{workload['metadata']['name']}-7d9f8-", **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def named(items):
    return {item["name"]: item for item in items}


def contains(before, after, path="pod"):
    """What of `before` is not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}"
            elif key != "terminationGracePeriodSeconds":
                yield from contains(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for number, item in enumerate(before):
            if not any(not list(contains(item, other)) for other in after):
                yield f"{path}[{number}]"
    elif before != after:
        yield path


def environment(container):
    """As a kubelet hands it over."""
    return {each["name"]: each["value"].replace("$$", "$") for each in container["env"]}


def shown(context, variables, config):
    """What `bursar check --show` says of a container's variables, with its files in a place of our own."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    local = lambda text: deploy.furnish(context, text, folder)
    variables = {name: local(value) for name, value in variables.items()}
    if "BURSAR_CONFIG" in variables:
        (folder / "bursar.yaml").write_text(local(config))
        variables["BURSAR_CONFIG"] = str(folder / "bursar.yaml")
    done = run(context.bursar, "check", "--show", env=variables)
    if not context.expect(done.returncode == 0, f"the injected variables are no configuration: {done.stderr.strip()}"):
        return []
    return [line.split("  # ")[0].replace(str(folder), "FOLDER") for line in done.stdout.splitlines()]


def check_inject(context):
    deploy.installed("openssl")
    versions = deploy.kubernetes_versions()
    certificates = make_certificates(context, context.folder / "certificates")
    by_hand = deploy.load_all(context.text("deploy/kubernetes/sidecar.yaml"))
    asks = next(each for each in deploy.load_all(context.text("deploy/kubernetes/injected.yaml")) if each["kind"] == "Deployment")
    plain = deploy.load_all(context.text("deploy/kubernetes/inject.yaml"))
    posted = compare(context, by_hand, asks, settings_of(plain), certificates, versions)

    for where, settings in {"inject.yaml": settings_of(plain), **chart_settings(context)}.items():
        with webhook(context, settings, certificates) as (asked, child):
            pod = pod_of(asks)
            pod["spec"]["securityContext"] = {"fsGroup": 65532}
            after = patched(pod, asked.review(pod))
            posted += 1
            deploy.check_schemas(context, [after], f"{where}: the injected pod", versions)
            context.expect(after["spec"].get("initContainers", [{}])[0].get("name") == "bursar", f"{where}: the annotated pod is not injected")
            secrets = [each["name"] for each in after["spec"].get("imagePullSecrets", [])]
            context.expect(secrets == pull_secrets(context, where), f"{where}: the pod's imagePullSecrets is {secrets}")
            if where == "inject.yaml":
                posted += check_answers(context, asked, pod, after)
                check_metrics(context, asked)
                check_default(context, after)
                check_renewal(context, asked, certificates)
            child.terminate()
            context.expect(child.wait(15) == 0, f"{where}: the webhook ends with {child.returncode} after SIGTERM")
    return f"{posted} reviews over TLS, their patches applied by jsonpatch: pods by Kubernetes {', '.join(versions)}, equal to sidecar.yaml; a certificate renewed; its metrics; the guide's commands for certificates"


def compare(context, by_hand, asks, settings, certificates, versions):
    """The injected pod against the one that is written by hand, with the same ConfigMap and Secret."""
    where = "injected.yaml against sidecar.yaml"
    settings += "\nconfig_map: support-bot-bursar\nadmin_secret: bursar-admin\nimage_pull_secrets: [registry, mirror]\n"
    pod = pod_of(asks)
    # As the account's admission adds them, before any webhook is asked.
    pod["spec"]["imagePullSecrets"] = [{"name": "shop"}, {"name": "registry"}]
    with webhook(context, settings, certificates) as (asked, _):
        after = patched(pod, asked.review(pod))
    deploy.check_schemas(context, [after], where, versions)
    for lost in contains(pod, after):
        context.fail(f"{where}: {lost} was in the pod and is not any more")
    manifest = copy.deepcopy(by_hand)
    workload = next(each for each in manifest if each["kind"] == "Deployment")
    wanted, workload["spec"]["template"]["spec"] = workload["spec"]["template"]["spec"], after["spec"]
    deploy.check_pods(context, manifest, where)
    same = lambda what, want, got: context.expect(want == got, f"{where}: {what} is {got} instead of {want}")
    ours, theirs = after["spec"]["initContainers"][0], wanted["initContainers"][0]
    for key in sorted(set(theirs) | set(ours)):
        if key == "env":
            config = next(each["data"]["bursar.yaml"] for each in by_hand if each["kind"] == "ConfigMap")
            same("the configuration in force", shown(context, environment(theirs), config), shown(context, environment(ours), config))
        elif key == "volumeMounts":
            same(key, named(theirs[key]), named(ours[key]))
        elif key != "imagePullPolicy":
            same(key, theirs.get(key), ours.get(key))
    volumes = named(after["spec"]["volumes"])
    same("volumes", named(wanted["volumes"]), {name: volume for name, volume in volumes.items() if name.startswith("bursar-")})
    same("imagePullSecrets", ["shop", "registry", "mirror"], [each["name"] for each in after["spec"]["imagePullSecrets"]])
    same("terminationGracePeriodSeconds", wanted["terminationGracePeriodSeconds"], after["spec"]["terminationGracePeriodSeconds"])
    same("the application's variables", environment(wanted["containers"][0]), environment(after["spec"]["containers"][0]))
    return 1


def chart_settings(context):
    """Those of the chart: as it comes, and with every value changed that says what sidecars are like."""
    from helm_python.chart import Chart
    chart = Chart.load(context.path(deploy.CHART))
    each = deploy.load_all(context.text(f"{deploy.CHART}/ci/values-each.yaml"))[0]
    changed = {}
    for path, (value, *_) in ((path, case) for path, case in each.items() if path.startswith("inject.sidecar.")):
        changed = deploy.merged(changed, deploy.nested(path, value))
    found = {}
    for where, values in {"helm: as it comes": {}, "helm: all changed": changed}.items():
        pages = chart.render(deploy.merged(deploy.BASES["inject"], values), name="shop", namespace="llm")
        found[where] = settings_of([document for page in deploy.manifests_of(pages).values() for document in deploy.load_all(page)])
    return found


def pull_secrets(context, where):
    """The Secrets that a pod gets which has none of its own."""
    each = deploy.load_all(context.text(f"{deploy.CHART}/ci/values-each.yaml"))[0]
    changed, _ = each["inject.sidecar.imagePullSecrets"]
    return [secret["name"] for secret in changed] if where == "helm: all changed" else []


def check_answers(context, asked, pod, after):
    """What is answered besides; returns how many reviews there were."""
    say = lambda condition, text: context.expect(condition, f"bursar inject: {text}")
    say("patch" not in asked.review(after), "a pod is injected twice")
    say("patch" not in asked.review(after, "/mutate/namespace"), "a pod is injected twice")
    say(asked.review(pod, dryRun=True) == asked.review(pod), "a dry run is answered differently")
    bare = copy.deepcopy(pod)
    bare["metadata"].pop("annotations")
    say("patch" not in asked.review(bare), "a pod that does not ask is injected")
    say("patch" in asked.review(bare, "/mutate/namespace"), "a pod of a namespace that asks is not injected")
    wrong = copy.deepcopy(pod)
    wrong["metadata"]["annotations"]["bursar.dev/inject"] = "yes"
    answer = asked.review(wrong)
    say(answer["allowed"] and "bursar.dev/inject" in answer["warnings"][0], f"a mistake is answered with {answer}")
    noted = patched(wrong, answer)
    say(noted["metadata"]["annotations"]["bursar.dev/status"].startswith("not injected: ") and noted["spec"] == wrong["spec"], "a mistake changes the pod")
    for body, kind, want in [(b"{", "application/json", 400), (b"{}", "application/json", 400), (b"{}", "text/plain", 415), (b" " * (5 << 20), "application/json", 413)]:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            status, said = asked.ask("POST", "/mutate", body, kind)
            say(status == want and "detail" in json.loads(said), f"{len(body)} bytes of {kind} are answered with {status}")
    for path in ("/healthz", "/readyz"):
        say(asked.ask("GET", path)[0] == 200, f"{path} does not answer")
    return 7


def check_metrics(context, asked):
    """What was answered before is counted; names and labels are those of the guide."""
    outcomes = re.findall(r"`(\w+)`", re.search(r"^\| `bursar_inject_reviews_total` \|.*$", context.text(GUIDE), re.M)[0])[1:]
    counts = {outcome: asked.metric(f'bursar_inject_reviews_total{{outcome="{outcome}"}}') for outcome in outcomes if outcome != "outcome"}
    say = lambda condition, text: context.expect(condition, f"bursar inject: {text}")
    say(None not in counts.values() and len(counts) == 12, f"the guide's outcomes and those on /metrics: {counts}")
    for outcome in ("injected", "not_asked", "already_there", "not_injected", "error"):
        say(counts.get(outcome), f"no review is counted as {outcome}: {counts}")
    total = asked.metric("bursar_inject_review_duration_seconds_count")
    say(total == sum(count or 0 for count in counts.values()), f"{total} durations of {counts}")
    for name in set(re.findall(r"^\| `(bursar_inject_\w+_(?:seconds|successful|total))` \|", context.text(GUIDE), re.M)) - {"bursar_inject_reviews_total"}:
        labels = {"bursar_inject_certificate_expiry_timestamp_seconds": "{}", "bursar_inject_certificate_reloads_total": '{result="refused"}'}
        seen = name + ("_sum" if "duration" in name else labels.get(name, ""))
        say(asked.metric(seen) is not None, f"the guide names the metric {name}, which /metrics has not")


def check_expiry(context, asked, certificate):
    """The time on /metrics against the one that OpenSSL reads."""
    told = run("openssl", "x509", "-noout", "-enddate", "-in", certificate).stdout.strip().removeprefix("notAfter=")
    seen = asked.metric("bursar_inject_certificate_expiry_timestamp_seconds{}")
    context.expect(seen == ssl.cert_time_to_seconds(told), f"bursar inject: the certificate ends at {told}; /metrics has {seen}")


def check_default(context, after):
    """The sidecar of the defaults runs with nothing but its variables, and its probes' command finds it."""
    sidecar = after["spec"]["initContainers"][0]
    context.expect(shown(context, environment(sidecar), ""), "the default sidecar has no configuration")
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    variables = {**environment(sidecar), "BURSAR_DATA_DIR": str(folder / "ledger")}
    for name in ("BURSAR_LISTEN", "BURSAR_ADMIN_LISTEN"):
        context.expect(variables[name].startswith("127.0.0.1:"), f"the default sidecar has {name}={variables[name]}")
        variables[name] = f"127.0.0.1:{deploy_live.free_port()}"
    command = sidecar["readinessProbe"]["exec"]["command"]
    with deploy_live.process([context.bursar, *sidecar["args"]], folder / "log", env=variables) as child:
        probe = lambda: run(context.bursar, *command[1:], env=variables).returncode == 0
        healthy = deploy_live.until(lambda: probe() or child.poll() is not None, pause=0.2)
        context.expect(healthy and child.poll() is None, f"the default sidecar is not ready: {(folder / 'log').read_text()[-300:]}")
    context.expect(not probe(), "the probe of the default sidecar passes when nothing runs")


def check_renewal(context, asked, certificates):
    """Other certificates take effect while it runs."""
    check_expiry(context, asked, certificates / "tls.crt")
    newer = make_certificates(context, context.folder / "newer")
    for name in ("tls.crt", "tls.key"):
        (certificates / name).write_bytes((newer / name).read_bytes())
    asked.authority = newer / "ca.crt"

    def answers():
        try:
            return asked.ask("GET", "/readyz")[0] == 200
        except ssl.SSLError:
            return False

    if context.expect(deploy_live.until(answers, pause=0.2), "a renewed certificate does not take effect"):
        check_expiry(context, asked, newer / "tls.crt")
        context.expect(asked.metric('bursar_inject_certificate_reloads_total{result="applied"}') == 1, "a renewed certificate is not counted")
    (certificates / "ca.crt").write_bytes((newer / "ca.crt").read_bytes())
