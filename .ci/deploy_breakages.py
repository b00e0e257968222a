"""Proves that the checks of deploy.py notice: breaks copies of the files one by one.

Each line of the table is one defect: the check that must fail, the file, what is there, what is put in its place,
and a part of what the check must say.
"""
import pathlib, shutil, tempfile
import deploy

CHART = "deploy/helm/bursar"
TABLE = [
    ("dockerfile", "deploy/docker/Dockerfile", "USER 65532:65532\n", "", "USER root"),
    ("dockerfile", "deploy/docker/Dockerfile", "USER 65532:65532", "RUN true", "RUN in the last stage"),
    ("dockerfile", "deploy/docker/Dockerfile", 'CMD ["/usr/local/bin/bursar", "ledger", "stats"]', "CMD curl localhost", "health check"),
    ("dockerfile", "deploy/docker/Dockerfile", "WORKDIR /src", "WORKDIR src", "DL3000"),
    ("dockerfile", "deploy/docker/Dockerfile", "COPY . .", "ADD Cargo.toml .", "DL3020"),
    ("dockerfile", "deploy/docker/Dockerfile", "ARG BASE_IMAGE=gcr.io/distroless/static-", "ARG BASE_IMAGE=gcr.io/distroless/cc-", "no distroless static nonroot image"),
    ("dockerfile", "deploy/docker/Dockerfile", "release-build.sh --static", "release-build.sh", "as a static one"),
    ("dockerfile", ".ci/release-build.sh", "cargo build --locked", "cargo build", "--locked"),
    ("dockerfile", ".dockerignore", "!tokens\n", "", "lets in"),
    ("dockerfile", ".dockerignore", "!tokens\n", "!tokens\n!target\n", "lets in"),
    ("image", "deploy/docker/Dockerfile", '"ledger", "stats"]', '"ledger", "state"]', "health check finds no healthy process"),
    ("image", "deploy/docker/Dockerfile", "BURSAR_DATA_DIR=/var/lib/bursar/ledger", "BURSAR_DATA_DIR=/opt/ledger", "no healthy process"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "replicas: 1", "replica: 1", "replica"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "terminationGracePeriodSeconds: 50", "terminationGracePeriodSeconds: 30", "killed after 30 s"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "drain: 30s", "drain: 3m", "killed after 50 s"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "allow_plaintext: true", "alow_plaintext: true", "bursar check"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "path: /readyz", "path: /ready", "startupProbe"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "169.254.0.0/16, ", "", "169.254.169.254"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "fsGroup: 65532", "fsGroup: 1", "fsGroup"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "image: registry.example.com/bursar:0.1.0", "image: registry.example.com/bursar:latest", "not pinned"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "targetPort: http", "targetPort: web", "which no container has"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "  maxUnavailable: 1", "  minAvailable: 1", "minAvailable"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "restartPolicy: Always", "tty: false", "native sidecar"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "listen: 127.0.0.1:4141", "listen: 0.0.0.0:4141", "bursar check"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "bytes_max: 921MiB", "bytes_max: 1GiB", "of the volume"),
    ("helm", "deploy/helm/bursar/templates/_helpers.tpl", "mountPath: /var/lib/bursar, readOnly: true", "mountPath: /var/lib/bursar", "may write to the ledger"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "endPort: 4141", "endPort: 4142", "admin port to everybody"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "name: support-bot-bursar }", "name: other }", "ConfigMap"),
    ("manifests", "deploy/kubernetes/inject.yaml", "failurePolicy: Ignore\n", "failurePolicy: Fail\n", "can be the outage"),
    ("manifests", "deploy/kubernetes/inject.yaml", "values: [kube-system, ", "values: [", "asks about pods of ['kube-system']"),
    ("manifests", "deploy/kubernetes/inject.yaml", "path: /mutate/namespace", "path: /mutate/name_space", "no path that Kubernetes takes"),
    ("manifests", "deploy/kubernetes/inject.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRootFilesystem"),
    ("manifests", "deploy/kubernetes/inject.yaml", "port: https, scheme: HTTPS }", "port: https }", "startupProbe asks"),
    ("manifests", "deploy/kubernetes/inject.yaml", "from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: monitoring } } }]", "from: []", "('metrics', 'to all')"),
    ("manifests", "deploy/kubernetes/inject.yaml", '"0.0.0.0:8080"', '"0.0.0.0:9090"', "--metrics-listen is 9090"),
    ("manifests", "deploy/kubernetes/inject.yaml", "egress: []", "egress: [{}]", "call others"),
    ("manifests", "deploy/kubernetes/inject.yaml", "operations: [CREATE]", "operations: [CREATE, UPDATE]", "rules"),
    ("manifests", "deploy/kubernetes/inject.yaml", "terminationGracePeriodSeconds: 20", "terminationGracePeriodSeconds: 10", "killed after 10 s"),
    ("helm", f"{CHART}/templates/inject-webhook.yaml", '"labelled" "NotIn"', '"labelled" "In"', "the wrong webhook"),
    ("helm", f"{CHART}/templates/inject-webhook.yaml", "inject-ca-from: {{ printf", "inject-ca-from: x{{ printf", "where the authority goes"),
    ("helm", f"{CHART}/templates/inject-workload.yaml", '"%s:8080"', '"%s:8443"', "--metrics-listen is 8443"),
    ("helm", f"{CHART}/templates/_helpers.tpl", '"on_mistake" $sidecar.onMistake', '"on_mistake" "warn"', "inject.sidecar.onMistake changes nothing"),
    ("inject", "deploy/kubernetes/sidecar.yaml", "sizeLimit: 1Gi", "sizeLimit: 2Gi", "volumes is"),
    ("inject", "deploy/kubernetes/sidecar.yaml", "periodSeconds: 2,", "periodSeconds: 3,", "startupProbe is"),
    ("inject", "deploy/kubernetes/sidecar.yaml", "team: checkout,", "team: research,", "the configuration in force"),
    ("inject", "deploy/kubernetes/injected.yaml", 'bursar.dev/inject: "true"', 'bursar.dev/inject: "yes"', "no container is called bursar"),
    ("inject", "deploy/kubernetes/inject.yaml", "drain_seconds: 30", "drain_second: 30", "unknown field"),
    ("inject", f"{CHART}/templates/_helpers.tpl", '"host_network" $sidecar', '"host_net" $sidecar', "unknown field"),
    ("inject", f"{CHART}/templates/_helpers.tpl", "append $secrets .name", "append $secrets .", "is no name"),
    ("inject", f"{CHART}/templates/_helpers.tpl", '"image_pull_secrets" $secrets', '"image_pull_secrets" list', "imagePullSecrets is"),
    ("inject", "docs/guide/injection.md", "`bursar_inject_tls_handshakes_failed_total`", "`bursar_inject_tls_handshakes_total`", "names the metric bursar_inject_tls_handshakes_total"),
    ("inject", "docs/guide/injection.md", "`already_there`", "`there_already`", "the guide's outcomes"),
    ("inject", "docs/guide/injection.md", "subjectAltName=DNS:bursar-inject.", "subjectAltName=DNS:inject.", "Hostname mismatch"),
    ("helm", f"{CHART}/templates/workload.yaml", "replicas: {{ .Values.replicas }}", "replicas: 1", "replicas changes nothing"),
    ("helm", f"{CHART}/templates/workload.yaml", "serviceAccountName:", "serviceAccuntName:", "serviceAccuntName"),
    ("helm", f"{CHART}/templates/_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
    ("helm", f"{CHART}/templates/_helpers.tpl", ".Values.drainSeconds) $closing", ".Values.preStopSeconds) 5", "killed after"),
    ("helm", f"{CHART}/templates/service.yaml", "{{- end }}", "{{- if }}", "service.yaml"),
    ("helm", f"{CHART}/values.yaml", "replicas: 1", "replicas: 1\nspare: 1", "spare"),
    ("helm", f"{CHART}/values.schema.json", '"listen": false,', "", "the schema takes"),
    ("manifests", "deploy/kubernetes/sidecar.yaml", "mountPath: /etc/bursar, readOnly", "mountPath: /etc/bursar/bursar.yaml, subPath: bursar.yaml, readOnly", "with a subPath"),
    ("manifests", "deploy/kubernetes/gateway.yaml", "scopes: [read]", "scopes: [everything]", "bursar check"),
    ("helm", f"{CHART}/templates/_helpers.tpl", "mountPath: /etc/bursar, readOnly", "mountPath: /etc/bursar/bursar.yaml, subPath: bursar.yaml, readOnly", "with a subPath"),
    ("helm", f"{CHART}/templates/_helpers.tpl", ", scheme: HTTPS }", " }", "startupProbe asks"),
    ("helm", f"{CHART}/templates/_helpers.tpl", "--ready{{ else }}", "--alive{{ else }}", "startupProbe asks"),
    ("helm", f"{CHART}/templates/_helpers.tpl", "and .clientCaKey (not .clientSecretName)", "and .clientCaKey (not .secretName)", "the templates take"),
    ("helm", f"{CHART}/templates/_helpers.tpl", '"client_ca_file" (printf', '"client_ca" (printf', "bursar check"),
    ("helm", f"{CHART}/templates/_helpers.tpl", '"currency" "reserve.body_bytes"', '"reserve.body_bytes"', "another currency restarts no pod"),
    ("helm", f"{CHART}/templates/workload.yaml", 'include "bursar.restart" .', 'include "bursar.config" .', "none of them needs it"),
    ("admin", f"{CHART}/templates/_helpers.tpl", "{ name: BURSAR_ADMIN_CERT_FILE", "{ name: BURSAR_CERT_FILE", "it does not start"),
    ("admin", f"{CHART}/templates/_helpers.tpl", "{ name: BURSAR_ADMIN_CA_FILE", "{ name: BURSAR_CA_FILE", "it does not start"),
    ("admin", f"{CHART}/templates/_helpers.tpl", '"scopes" .scopes', '"scopes" (list "admin")', "are answered with [401, 200, "),
    ("admin", f"{CHART}/templates/_helpers.tpl", '"metrics_public" .Values.admin.metricsPublic', '"metrics_public" true', "are answered with [200, 200, "),
    ("systemd", "deploy/systemd/bursar.service", "CapabilityBoundingSet=\n", "", "not under"),
    ("systemd", "deploy/systemd/bursar.service", "TimeoutStopSec=45s", "TimeoutStopSec=20s", "TimeoutStopSec"),
    ("systemd", "deploy/systemd/bursar.socket", "FileDescriptorName=proxy", "FileDescriptorName=proxi", "must call its socket proxy"),
    ("systemd", "deploy/systemd/bursar-admin.socket", "ListenStream=", "ListenStraem=", "bursar-admin.socket"),
    ("systemd", "deploy/systemd/bursar.service", "ProtectHome=yes", "ProtectHoms=yes", "verify"),
    ("calls", "deploy/systemd/bursar.service", "@resources @obsolete", "@resources @obsolete @network-io", "SystemCallFilter forbids accept4"),
    ("calls", "deploy/systemd/bursar.service", "AF_INET AF_INET6", "AF_INET6", "forbids AF_INET"),
    ("rules", "deploy/prometheus/rules.yaml", "> 0.5", "> 0.9", "FAILED"),
    ("rules", "deploy/prometheus/rules.yaml", "expr: up{", "expr: up{{", "check rules"),
    ("rules", "deploy/prometheus/rules_test.yaml", "alertname: BursarDown", "alertname: BursarGone", "BursarDown"),
    ("rules", "deploy/prometheus/rules.yaml", "< 7 * 86400", "< 3 * 86400", "FAILED"),
    ("rules", "deploy/prometheus/rules.yaml", "max by (job) (up{", "min by (job) (up{", "FAILED"),
    ("rules", "deploy/prometheus/prometheus.yaml", "job_name: bursar", "job_name: purse", "job name"),
    ("rules", "deploy/prometheus/prometheus.yaml", "job_name: bursar-inject\n", "job_name: bursar-inject\n    authorization: { credentials_file: /token }\n", "a token that is not for it"),
    ("rules", "deploy/prometheus/prometheus.yaml", "secrets/bursar-read/token", "secrets/bursar-admin/token", "may do everything"),
    ("rules", "deploy/prometheus/prometheus.yaml", "# scheme: https", "# scheme: http", "the lines for TLS say"),
    ("rules", "deploy/prometheus/prometheus.yaml", "# tls_config: { ca_file:", "# tls_config: { authority:", "check config"),
    ("rules", "deploy/otel/collector.yaml", "exporters: [otlphttp, debug]", "exporters: [otlp]", "exporters"),
    ("rules", "deploy/otel/collector.yaml", "scrape_interval: 15s", "scrape_intervals: 15s", "check config"),
    ("compose", "deploy/compose/compose.yaml", '"127.0.0.1:4142:4142"', '"4142:4142"', "beyond loopback"),
    ("compose", "deploy/compose/compose.yaml", "../grafana:", "../dashboards:", "no source"),
    ("compose", "deploy/compose/compose.yaml", "stop_grace_period: 45s", "stop_grace_period: 10s", "stop_grace_period"),
    ("compose", "deploy/compose/compose.yaml", "    secrets: [read-token]", "    secrets: [admin-token]", "may do everything"),
    ("compose", "deploy/compose/bursar.yaml", "mode: soft", "mode: mild", "bursar check"),
    ("dashboards", "deploy/grafana/platform.json", "bursar_requests_in_flight", "bursar_requests_flying", "no data"),
    ("dashboards", "deploy/grafana/finops.json", "sum by (kind) (", "sum by (kind) ((", "parse error"),
    ("dashboards", "deploy/grafana/finops.json", "{{budget}}", "{{team}}", "the legend names team"),
    ("dashboards", "deploy/prometheus/rules.yaml", "bursar_meter_panics_total", "bursar_meter_alarms_total", "there is no metric bursar_meter_alarms_total"),
    ("dashboards", "deploy/prometheus/rules.yaml", "bursar_inject_certificate_last_reload_successful", "bursar_inject_certificate_in_force", "there is no metric bursar_inject_certificate_in_force"),
    ("guides", "docs/README.md", "](guide/tagging.md)", "](guide/budgets.md)", "does not name the guide tagging.md"),
    ("guides", "deploy/README.md", "](../docs/guide/sidecar.md)", "](../docs/guide/pod.md)", "leads nowhere"),
    ("guides", "docs/guide/disaster-recovery.md", "bursar ledger verify", "bursar ledger prove", "there is no command 'prove'"),
]


def prove(options, tools):
    """Returns the exit code: 1 when a defect goes unnoticed."""
    performed, tried, missed = deploy.checks(), 0, 0
    for name, file, old, new, said in TABLE:
        if options.only and name not in options.only:
            continue
        tried += 1
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            root = folder / "root"
            for part in ("deploy", "docs"):
                shutil.copytree(options.root / part, root / part)
            (root / ".ci").mkdir()
            for part in ("Cargo.toml", ".dockerignore", "README.md", ".ci/release-build.sh"):
                shutil.copy(options.root / part, root / part)
            text = (root / file).read_text()
            if old not in text:
                print(f"MISSED  {name}: {file} has no {old!r} to break")
                missed += 1
                continue
            (root / file).write_text(text.replace(old, new, 1))
            (folder / "work").mkdir()
            context = deploy.Context(root, options.bursar, folder / "work", tools, options.static)
            try:
                deploy.perform(performed[name], context)
            except deploy.Skipped as reason:
                print(f"SKIPPED {name}: {file}: {reason}")
                continue
        noticed = any(said in problem for problem in context.problems)
        missed += not noticed
        print(f"{'noticed' if noticed else 'MISSED '} {name}: {file}: {new!r:.60} for {old!r:.60}" + ("" if noticed else f": it says {context.problems}"), flush=True)
    print(f"prove: {missed} of {tried} defects go unnoticed")
    return 1 if missed else 0
