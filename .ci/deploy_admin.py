"""The check of deploy.py for the chart's admin listener: what is rendered runs, with TLS, and with clients' certificates.

Probes are asked as a kubelet would, or run as the commands that they are; Prometheus' token reads and does no more.
"""
import http.client, pathlib, ssl, tempfile
import deploy, deploy_live
from deploy import run

READER = {"name": "prometheus", "scopes": ["read"], "secret": {"name": "bursar-read", "key": "token"}}


def check_admin(context):
    from helm_python.chart import Chart
    deploy.installed("openssl")
    chart = Chart.load(context.path(deploy.CHART))
    for name, tls in {"defaults": {}, "tls": {"caKey": "ca.crt"}, "mutual": {}}.items():
        more = {"admin": {"tokens": [READER], "tls": tls}, "config": {"ledger": {"fail": "closed"}}}
        values = deploy.merged(deploy.BASES[name], more)
        pages = deploy.manifests_of(chart.render(values, name="shop", namespace="llm"))
        documents = [document for page in pages.values() for document in deploy.load_all(page)]
        check_running(context, documents, f"helm: {name}")
    return "the chart's configurations run: probes in plain HTTP, in TLS, and as commands with a certificate; a token that only reads"


def check_running(context, documents, where):
    folder = pathlib.Path(tempfile.mkdtemp(dir=context.folder))
    local = lambda text: deploy.furnish(context, text, folder)
    [config] = [document["data"]["bursar.yaml"] for document in documents if document["kind"] == "ConfigMap"]
    [workload] = [document for document in documents if document["kind"] == "StatefulSet"]
    container, _ = deploy.bursar_of(workload)
    (folder / "bursar.yaml").write_text(local(config))
    variables = {each["name"]: local(each["value"]) for each in container["env"]}
    variables["BURSAR_CONFIG"] = str(folder / "bursar.yaml")
    ports = {name: deploy_live.free_port() for name in ("BURSAR_LISTEN", "BURSAR_ADMIN_LISTEN")}
    variables.update({name: f"127.0.0.1:{port}" for name, port in ports.items()})
    asked = Asked(context, container, variables, ports["BURSAR_ADMIN_LISTEN"])
    say = lambda condition, text: context.expect(condition, f"{where}: {text}")
    with deploy_live.process([context.bursar, *container["args"]], folder / "log", env=variables) as child:
        ready = deploy_live.until(lambda: asked.probe("startupProbe") or child.poll() is not None, pause=0.2)
        if not say(ready and child.poll() is None, f"it does not start: {(folder / 'log').read_text()[-300:]}"):
            return
        for probe in ("livenessProbe", "readinessProbe"):
            say(asked.probe(probe), f"the {probe} fails while it serves")
        # As `kubectl exec POD -c bursar -- bursar usage` does.
        done = run(context.bursar, "usage", env=variables)
        say(done.returncode == 0, f"a command in the pod fails: {done.stderr.strip()}")
        token = (folder / "secrets/bursar-admin-tokens/prometheus").read_text().strip()
        told = [asked.status("GET", "/metrics"), asked.status("GET", "/metrics", token), asked.status("POST", "/api/v1/ledger/prune?before=90d", token)]
        say(told == [401, 200, 403], f"/metrics without a token, with Prometheus' token, and pruning with it are answered with {told}")
        if "exec" in container["readinessProbe"]:
            say(asked.status("GET", "/healthz", certificate=False) is None, "a client without a certificate is answered")
    for probe in ("livenessProbe", "readinessProbe"):
        say(not asked.probe(probe), f"the {probe} passes when nothing runs")


class Asked:
    """The admin listener of a container that runs on this machine."""

    def __init__(self, context, container, variables, port):
        self.context, self.container, self.variables, self.port = context, container, variables, port
        self.is_tls = any(volume["name"] == "bursar-admin-tls" for volume in container["volumeMounts"])

    def probe(self, name):
        probe = self.container[name]
        if "exec" in probe:
            return run(self.context.bursar, *probe["exec"]["command"][1:], env=self.variables).returncode == 0
        is_https = probe["httpGet"].get("scheme") == "HTTPS"
        return self.status("GET", probe["httpGet"]["path"], is_tls=is_https) == 200

    def status(self, method, path, token=None, certificate=True, is_tls=None):
        """None where nobody answers."""
        if self.is_tls if is_tls is None else is_tls:
            trust = ssl.create_default_context()
            # As kubelets, which ask whoever is there.
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            if certificate:
                pair = deploy.certificate(self.context)
                trust.load_cert_chain(pair / "tls.crt", pair / "tls.key")
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={"authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
