"""The checks of deploy.py that run the binary: as its image would, under strace, and scraped by Prometheus.

Every process that is started here ends here; all listen on loopback at ports that the system chooses.
"""
import contextlib, http.client, http.server, json, pathlib, re, shutil, socket, subprocess, threading, time
import urllib.error, urllib.parse, urllib.request
import deploy
from deploy import Skipped, run

SCRAPE = "500ms"
TRAFFIC_SECONDS = 3
# On a busy machine scrapes come late: queries without data are asked again after more traffic.
ROUNDS = 3
START_SECONDS = 15
# What Grafana fills in. The ranges are those of a check that runs for some seconds.
VARIABLES = {"$__rate_interval": "10s", "$__range": "1m", "$instance": ".*"}


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers like OpenAI: plain or streamed; `user` in the request asks for trouble."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        trouble = request.get("user")
        if trouble == "sums":
            usage["total_tokens"] = 999
        told = {} if trouble == "silent" else {"usage": usage}
        if request.get("stream"):
            return self.stream(usage)
        message = {"role": "assistant", "content": "some words"}
        body = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", **told,
                           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(500 if trouble == "fails" else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, usage):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
        words = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in ("some ", "more ", "words")]
        for chunk in [*({"choices": [word]} for word in words), {"choices": [], "usage": usage}]:
            self.wfile.write(f"data: {json.dumps({**head, **chunk})}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


@contextlib.contextmanager
def provider():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def process(command, log, **more):
    """A process that ends with this block, whatever happens in it."""
    with open(log, "w") as out:
        child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, **more)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(10)


def metrics(context, admin):
    """A sidecar's page of metrics."""
    token = (context.folder / "token").read_text().strip()
    request = urllib.request.Request(f"http://{admin}/metrics", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


def until(what, seconds=START_SECONDS, pause=0.05):
    """The first true answer of `what`, or its last one."""
    end = time.monotonic() + seconds
    while not (answer := what()) and time.monotonic() < end:
        time.sleep(pause)
    return answer


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def addresses(log):
    """Where a sidecar says that it listens."""
    return re.search(r'"proxy":"([\d.]+:\d+)","admin":"([\d.]+:\d+)"', pathlib.Path(log).read_text())


def ask(address, team, user="fine"):
    """One chat completion; returns its status."""
    body = json.dumps({"model": "gpt-4o-mini", "max_tokens": 50, "user": user, "stream": user == "streams",
                       "messages": [{"role": "user", "content": "hi"}]})
    headers = {"content-type": "application/json", **({"x-bursar-team": team} if team else {})}
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", "/openai/v1/chat/completions", body, headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


# Every kind of event that a dashboard shows, with the status that the client sees.
EVENTS = [("search", "fine", 200), ("search", "streams", 200), ("search", "sums", 200), ("search", "silent", 200), ("search", "fails", 500),
          ("refused", "fine", 429), ("warned", "fine", 200), ("shadowed", "fine", 200), (None, "fine", 400)]

CONFIG = """
listen: 127.0.0.1:0
admin: {{ listen: "127.0.0.1:0", token_file: {folder}/token }}
ledger: {{ path: {folder}/ledger, bytes_max: 1GiB }}
identity: {{ required: [team] }}
builtin_routes: false
routes:
  - {{ prefix: /openai, upstream: "http://127.0.0.1:{upstream}", provider: openai }}
budgets:
  - {{ name: month, window: month, limit: 100 USD, mode: soft }}
  - {{ name: refused, scope: {{ team: refused }}, window: day, limit: 10 tokens }}
  - {{ name: warned, scope: {{ team: warned }}, window: day, limit: 10 tokens, mode: soft }}
  - {{ name: shadowed, scope: {{ team: shadowed }}, window: day, limit: 10 tokens, mode: shadow }}
telemetry: {{ log: {{ format: json }} }}
"""


@contextlib.contextmanager
def sidecar(context, folder, before=()):
    """A sidecar with a provider; yields its two addresses and its process."""
    with provider() as upstream:
        (folder / "token").write_text("a-token-of-this-check-0123456789\n")
        (folder / "bursar.yaml").write_text(CONFIG.format(folder=folder, upstream=upstream))
        log = folder / "bursar.log"
        with process([*before, context.bursar, "serve", "--config", folder / "bursar.yaml"], log) as child:
            found = until(lambda: addresses(log) or child.poll() is not None)
            if found is True or not found:
                raise RuntimeError(f"the sidecar did not start: {log.read_text()[-400:]}")
            yield found[1], found[2], child


# === as the image would run it

def check_image(context):
    """Runs what the Dockerfile's last stage says, in a root that has the static binary, what distroless has, and nothing else."""
    if not context.static:
        raise Skipped("no --static BURSAR was given, which is what the image gets (.ci/release-build.sh --static)")
    bwrap = deploy.debian(context.tools, "bubblewrap", "usr/bin/bwrap")
    if run(bwrap, "--unshare-user", "--ro-bind", "/", "/", "true").returncode != 0:
        raise Skipped("user namespaces are closed here, so the image's root cannot be tried")
    headers = run("readelf", "--wide", "--program-headers", "--dynamic", context.static).stdout
    context.expect("LOAD" in headers, f"{context.static} is no program that readelf can read")
    for word in ("INTERP", "(NEEDED)"):
        context.expect(word not in headers, f"{context.static} is not static: it has {word}")
    if context.problems:
        return ""
    environment, health, command = deploy.image_facts(context)
    root, data = context.folder / "root", context.folder / "data"
    data.mkdir(mode=0o700)
    (root / "usr/local/bin").mkdir(parents=True)
    shutil.copy(context.static, root / "usr/local/bin/bursar")
    (root / "etc/ssl/certs").mkdir(parents=True)
    certificates = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        shutil.copy(certificates, root / "etc/ssl/certs/ca-certificates.crt")
    # As in distroless; Kubernetes and Docker write `hosts`. What is static looks names up itself.
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost provider.test\n")
    for name in ("dev", "proc", "var/lib/bursar"):
        (root / name).mkdir(parents=True)
    with provider() as upstream:
        proxy = f"127.0.0.1:{free_port()}"
        (data / "bursar.yaml").write_text(
            "builtin_routes: false\nroutes:\n"
            f"  - {{ prefix: /openai, upstream: 'http://provider.test:{upstream}', provider: openai }}\n")
        variables = {**environment, "BURSAR_LISTEN": proxy, "BURSAR_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
                     "BURSAR_CONFIG": "/var/lib/bursar/bursar.yaml"}
        inside = [bwrap, "--unshare-user", "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL", "--clearenv", "--ro-bind", root, "/",
                  "--proc", "/proc", "--dev", "/dev", "--bind", data, "/var/lib/bursar", "--chdir", "/var/lib/bursar", "--die-with-parent"]
        for name, value in variables.items():
            inside += ["--setenv", name, value]
        context.expect(run(*inside, "/bin/sh", "-c", "true").returncode != 0, "there is a shell")
        log = context.folder / "log"
        with process([*inside, *command], log) as child:
            healthy = until(lambda: run(*inside, *health).returncode == 0 or child.poll() is not None, pause=0.2)
            context.expect(healthy and child.poll() is None, f"the health check finds no healthy process: {log.read_text()[-400:]}")
            context.expect((data / "ledger/journal").is_dir(), f"the ledger is not in the volume: {sorted(data.rglob('*'))}")
            if not context.problems:
                status = ask(proxy, "search", "fine")
                context.expect(status == 200, f"a request to a provider that is named in /etc/hosts gets {status}")
            # bwrap waits for the process; the signal goes to that, as a container's would.
            children = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            for pid in children:
                subprocess.run(["kill", "-TERM", pid], check=False)
            code = child.wait(40)
            context.expect(code == 0, f"it ends with {code} after SIGTERM")
        context.expect(run(*inside, *health).returncode != 0, "the health check passes when nothing runs")
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) / 1_000_000
    return (f"the static program runs as 65532 on a read-only root of {size:.0f} MB without a library or a shell, finds its provider by name; "
            f"{' '.join(health)} is its health check (root made here, not by docker)")


# === what the unit's filter allows

def check_calls(context):
    """Every system call of a run with traffic and a drain is one that the systemd unit allows."""
    analyze, strace = deploy.installed("systemd-analyze"), deploy.installed("strace")
    allowed = deploy.allowed_calls(analyze, context.text("deploy/systemd/bursar.service"))
    if not context.expect(len(allowed) > 100, f"the unit allows {len(allowed)} system calls"):
        return ""
    trace = context.folder / "trace"
    with sidecar(context, context.folder, [strace, "-f", "-qq", "-o", trace]) as (proxy, admin, child):
        for team, user, status in EVENTS:
            ask(proxy, team, user)
        context.expect("process_resident_memory_bytes" in metrics(context, admin), "the page of metrics says nothing of the process")
        # strace would detach from it: the signal goes to the process itself.
        for pid in pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            subprocess.run(["kill", "-TERM", pid], check=False)
        child.wait(30)
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    context.expect(len(used) > 20, f"strace saw {len(used)} system calls")
    # execve is what systemd does itself, before the filter counts.
    for call in sorted(used - allowed - {"execve"}):
        context.fail(f"the unit's SystemCallFilter forbids {call}, which a run uses")
    families = set(re.search(r"^RestrictAddressFamilies=(.+)$", context.text("deploy/systemd/bursar.service"), re.M)[1].split())
    for family in sorted(set(re.findall(r"\bsocket\((AF_\w+)", trace.read_text())) - families):
        context.fail(f"the unit's RestrictAddressFamilies forbids {family}, which a run uses")
    return f"{len(used)} system calls of a run, all among the {len(allowed)} that the unit allows"


# === dashboards

def check_dashboards(context):
    import deploy_inject
    prometheus = deploy.debian(context.tools, "prometheus", "usr/bin/prometheus")
    deploy.installed("openssl")
    certificates = deploy_inject.make_certificates(context, context.folder / "certificates")
    settings = deploy_inject.settings_of(deploy.load_all(context.text("deploy/kubernetes/inject.yaml")))
    with sidecar(context, context.folder) as (proxy, admin, _), deploy_inject.webhook(context, settings, certificates) as (asked, _):
        port = free_port()
        config = {
            "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": "1s"},
            "rule_files": [str(context.path("deploy/prometheus/rules.yaml"))],
            "scrape_configs": [{"job_name": "bursar", "static_configs": [{"targets": [admin]}],
                                "authorization": {"credentials_file": str(context.folder / "token")}},
                               {"job_name": "bursar-inject", "static_configs": [{"targets": [asked.metrics]}]}],
        }
        (context.folder / "prometheus.yaml").write_text(json.dumps(config))
        command = [prometheus, f"--config.file={context.folder}/prometheus.yaml", f"--storage.tsdb.path={context.folder}/tsdb",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with process(command, context.folder / "prometheus.log") as child:
            ready = until(lambda: child.poll() is not None or answers(f"http://127.0.0.1:{port}/-/ready"))
            if not context.expect(ready and child.poll() is None, f"Prometheus did not start: {(context.folder / 'prometheus.log').read_text()[-400:]}"):
                return ""
            # Prometheus takes some seconds to find its targets; before, rates have nothing to go by.
            scraped = lambda: query(port, "query", query="count_over_time(up[30s]) > 1 and up == 1")["result"]
            context.expect(until(lambda: len(scraped()) == 2, pause=0.2), f"Prometheus scrapes {scraped()} instead of the sidecar and the webhook")
            before = len(context.problems)
            for _ in range(ROUNDS):
                del context.problems[before:]
                drive(context, proxy)
                asked = sum(ask_board(context, port, file) for file in sorted(context.path("deploy/grafana").glob("*.json")))
                if len(context.problems) == before:
                    break
            check_metrics_of_alerts(context, port)
            version = run(prometheus, "--version")
    return f"{asked} queries of the dashboards, each with data from Prometheus {(version.stdout + version.stderr).split()[2]}; every alert is evaluated there"


def drive(context, proxy):
    """Traffic of every kind for some seconds, and the time for one more scrape."""
    end = time.monotonic() + TRAFFIC_SECONDS
    while time.monotonic() < end:
        for team, user, status in EVENTS:
            got = ask(proxy, team, user)
            context.expect(got == status, f"{team or 'nobody'}/{user} was answered {got} instead of {status}")
        time.sleep(0.1)
    time.sleep(1)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def query(port, path, **parameters):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as reply:
        return json.load(reply)["data"]


def ask_board(context, port, file):
    board = json.loads(file.read_text())
    asked, ids = 0, set()
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
            asked += 1
            found = query(port, f"label/{label}/values", **{"match[]": metric})
            context.expect(found, f"{file.name}: the variable {variable['name']} has no values")
    for panel in board["panels"]:
        context.expect(panel["id"] not in ids, f"{file.name}: two panels have the id {panel['id']}")
        ids.add(panel["id"])
        targets = panel.get("targets", [])
        context.expect(targets or panel["type"] == "text", f"{file.name}: {panel['title']}: the panel asks nothing")
        for target in targets:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            asked += 1
            context.expect("$" not in expression, f"{file.name}: {panel['title']}: a variable is not known: {expression}")
            try:
                found = query(port, "query", query=expression)["result"]
            except urllib.error.HTTPError as error:
                context.fail(f"{file.name}: {panel['title']}: {json.load(error).get('error')}")
                continue
            numbers = [sample["value"][1] for sample in found if sample["value"][1] != "NaN"]
            context.expect(numbers, f"{file.name}: {panel['title']}: no data for {expression}")
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                context.expect(all(label in sample["metric"] for sample in found), f"{file.name}: {panel['title']}: the legend names {label}, which the result has not")
    return asked


def check_metrics_of_alerts(context, port):
    """Every metric that an alert names is one that a sidecar or the webhook gives, and Prometheus can evaluate every rule."""
    names = set(query(port, "label/__name__/values"))
    # The text of a rule is parsed by Prometheus; its metrics are the names before a brace, a bracket or an operator.
    for group in query(port, "rules")["groups"]:
        for rule in group["rules"]:
            context.expect(rule["health"] in ("ok", "unknown"), f"{rule['name']}: {rule.get('lastError')}")
            for metric in set(re.findall(r"\b(?:bursar_\w+|process_\w+|up)\b(?=[\s{\[)]|$)", rule["query"])):
                context.expect(metric in names, f"{rule['name']}: there is no metric {metric}")
