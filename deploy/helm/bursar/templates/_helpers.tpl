{{/* Names, labels, Bursar's configuration and its container. */}}

{{- define "bursar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: a StatefulSet adds to it for its pods' labels. */}}
{{- define "bursar.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "bursar.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "bursar.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bursar.selector" -}}
app.kubernetes.io/name: {{ include "bursar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bursar.labels" -}}
{{ include "bursar.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ .Values.mode }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "bursar.serviceAccount" -}}
{{- default (include "bursar.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "bursar.tokenSecret" -}}
{{- default (printf "%s-admin" (include "bursar.fullname" .)) .Values.admin.tokenSecret.name -}}
{{- end -}}

{{/* Where the tokens of admin.tokens come from that stand in Secrets; each is a file of its name. */}}
{{- define "bursar.tokenSources" -}}
{{- $sources := list -}}
{{- range .Values.admin.tokens -}}
{{- if .secret -}}
{{- $items := list (dict "key" .secret.key "path" .name) -}}
{{- $sources = append $sources (dict "secret" (dict "name" .secret.name "items" $items)) -}}
{{- end -}}
{{- end -}}
{{- with $sources -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "bursar.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Nine tenths of the ledger's volume, in MiB; nothing where its size is no whole number or too small to bound. */}}
{{- define "bursar.ledgerMax" -}}
{{- $size := toString (ternary .Values.persistence.size .Values.persistence.sizeLimit .Values.persistence.enabled) -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $number := regexFind "^[0-9]+" $size -}}
{{- $unit := trimPrefix $number $size -}}
{{- if hasKey $units $unit -}}
{{- $mib := div (mul (div (mul (int64 $number) (int64 (get $units $unit))) 10) 9) 1048576 -}}
{{- if ge $mib (int64 64) -}}{{- printf "%dMiB" $mib -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* bursar.yaml: what is given, and over it what the chart decides. */}}
{{- define "bursar.config" -}}
{{- $admin := dict "listen" (printf "%s:4142" .Values.bindAddress) "token_file" "/run/secrets/bursar-admin/token" "metrics_public" .Values.admin.metricsPublic -}}
{{- $tokens := list -}}
{{- range .Values.admin.tokens -}}
{{- $token := dict "name" .name "scopes" .scopes -}}
{{- if .hash -}}
{{- $_ := set $token "hash" .hash -}}
{{- else -}}
{{- $_ := set $token "file" (printf "/run/secrets/bursar-admin-tokens/%s" .name) -}}
{{- end -}}
{{- $tokens = append $tokens $token -}}
{{- end -}}
{{- with $tokens -}}
{{- $_ := set $admin "tokens" . -}}
{{- end -}}
{{- with .Values.admin.tls -}}
{{- if and (not .secretName) (or .caKey .clientCaKey .clientSecretName) -}}
{{- fail "admin.tls.caKey, clientCaKey and clientSecretName need admin.tls.secretName: without it the admin listener has no TLS" -}}
{{- end -}}
{{- if and .clientCaKey (not .clientSecretName) -}}
{{- fail "admin.tls.clientCaKey needs admin.tls.clientSecretName: a kubelet has no certificate to show, so probes are commands in the pod, which need one" -}}
{{- end -}}
{{- if .secretName -}}
{{- $tls := dict "cert_file" "/run/secrets/bursar-admin-tls/tls.crt" "key_file" "/run/secrets/bursar-admin-tls/tls.key" -}}
{{- if .clientCaKey -}}
{{- $_ := set $tls "client_ca_file" (printf "/run/secrets/bursar-admin-tls/%s" .clientCaKey) -}}
{{- end -}}
{{- $_ := set $admin "tls" $tls -}}
{{- end -}}
{{- end -}}
{{- $fixed := dict "admin" $admin "ledger" (dict "path" "/var/lib/bursar/ledger") "server" (dict "timeouts" (dict "drain" (printf "%ds" (int .Values.drainSeconds)))) -}}
{{- $ledgerMax := include "bursar.ledgerMax" . -}}
{{- if and $ledgerMax (not (hasKey (default dict .Values.config.ledger) "bytes_max")) -}}
{{- $_ := set $fixed.ledger "bytes_max" $ledgerMax -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- $_ := set $fixed "listen" (printf "%s:4141" .Values.bindAddress) -}}
{{- $_ := set $fixed "allow_plaintext" true -}}
{{- else -}}
{{- $_ := set $fixed "listen" "127.0.0.1:4141" -}}
{{- end -}}
{{- toYaml (mustMergeOverwrite (deepCopy .Values.config) $fixed) -}}
{{- end -}}

{{/* What of bursar.yaml only a restart changes, as docs/reference/configuration.md says at each setting. */}}
{{- define "bursar.restart" -}}
{{- $config := include "bursar.config" . | fromYaml -}}
{{- $found := dict -}}
{{- range list
  "listen" "allow_plaintext" "admin.listen"
  "ledger.path" "ledger.durability" "ledger.group_delay" "ledger.queue_entries_max" "ledger.retention.detail"
  "currency" "reserve.body_bytes" "server"
  "upstream.pool_idle" "upstream.pool_max_idle_per_host" "upstream.ca_file"
  "counting.threads" "counting.queue_entries_max"
  "telemetry.series_max" "telemetry.otlp" "telemetry.otlp_protocol" "telemetry.log.format"
-}}
{{- $path := . -}}
{{- $value := $config -}}
{{- range splitList "." $path -}}
{{- $value = ternary $value dict (kindIs "map" $value) -}}
{{- $value = index $value . -}}
{{- end -}}
{{- $_ := set $found $path $value -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* Longest time between the order to end and the end of the pod; 15 seconds are to close the ledger, 30 for its last copy. */}}
{{- define "bursar.graceSeconds" -}}
{{- $closing := ternary 15 45 (empty .Values.shipping.volume) -}}
{{- if eq .Values.mode "gateway" -}}
{{- add (int .Values.preStopSeconds) (int .Values.drainSeconds) $closing -}}
{{- else -}}
{{- add (int .Values.sidecar.graceSeconds) (int .Values.drainSeconds) $closing -}}
{{- end -}}
{{- end -}}

{{/* Asks `path`; by a command that shows a certificate where the listener wants one. */}}
{{- define "bursar.probe" -}}
{{- if .tls.clientCaKey -}}
exec: { command: [/usr/local/bin/bursar, ledger, stats, {{ if eq .path "/readyz" }}--ready{{ else }}--alive{{ end }}] }
{{- else if .tls.secretName -}}
httpGet: { path: {{ .path }}, port: admin, scheme: HTTPS }
{{- else -}}
httpGet: { path: {{ .path }}, port: admin }
{{- end }}
periodSeconds: {{ .times.periodSeconds }}
timeoutSeconds: {{ ternary 5 2 (not (empty .tls.clientCaKey)) }}
failureThreshold: {{ .times.failureThreshold }}
{{- end -}}

{{/* Bursar's container, for a pod's containers (gateway) or init containers (native sidecar). */}}
{{- define "bursar.container" -}}
- name: bursar
  image: {{ include "bursar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve]
  {{- if eq .Values.mode "sidecar" }}
  restartPolicy: Always
  {{- else if gt (int .Values.preStopSeconds) 0 }}
  lifecycle:
    preStop: { sleep: { seconds: {{ .Values.preStopSeconds }} } }
  {{- end }}
  env:
    - { name: BURSAR_CONFIG, value: /etc/bursar/bursar.yaml }
    {{- with .Values.admin.tls.caKey }}
    - { name: BURSAR_ADMIN_CA_FILE, value: {{ printf "/run/secrets/bursar-admin-tls/%s" . }} }
    {{- end }}
    {{- if .Values.admin.tls.clientSecretName }}
    - { name: BURSAR_ADMIN_CERT_FILE, value: /run/secrets/bursar-admin-client/tls.crt }
    - { name: BURSAR_ADMIN_KEY_FILE, value: /run/secrets/bursar-admin-client/tls.key }
    {{- end }}
    {{- with .Values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- if eq .Values.mode "gateway" }}
    - { name: http, containerPort: 4141, protocol: TCP }
    {{- end }}
    - { name: admin, containerPort: 4142, protocol: TCP }
  startupProbe:
    {{- include "bursar.probe" (dict "path" "/readyz" "times" .Values.probes.startup "tls" .Values.admin.tls) | nindent 4 }}
  livenessProbe:
    {{- include "bursar.probe" (dict "path" "/healthz" "times" .Values.probes.liveness "tls" .Values.admin.tls) | nindent 4 }}
  readinessProbe:
    {{- include "bursar.probe" (dict "path" "/readyz" "times" .Values.probes.readiness "tls" .Values.admin.tls) | nindent 4 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
    privileged: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile: { type: RuntimeDefault }
  volumeMounts:
    - { name: bursar-data, mountPath: /var/lib/bursar }
    # A whole directory: a `subPath` would never show the pod another file.
    - { name: bursar-config, mountPath: /etc/bursar, readOnly: true }
    - { name: bursar-admin, mountPath: /run/secrets/bursar-admin, readOnly: true }
    {{- if include "bursar.tokenSources" . }}
    - { name: bursar-admin-tokens, mountPath: /run/secrets/bursar-admin-tokens, readOnly: true }
    {{- end }}
    {{- if .Values.admin.tls.secretName }}
    - { name: bursar-admin-tls, mountPath: /run/secrets/bursar-admin-tls, readOnly: true }
    {{- end }}
    {{- if .Values.admin.tls.clientSecretName }}
    - { name: bursar-admin-client, mountPath: /run/secrets/bursar-admin-client, readOnly: true }
    {{- end }}
    {{- range .Values.secrets }}
    - { name: {{ printf "secret-%s" . }}, mountPath: {{ printf "/run/secrets/%s" . }}, readOnly: true }
    {{- end }}
{{- end -}}

{{/* The container that ships copies of the ledger: a native sidecar before Bursar, so that it ends after it. */}}
{{- define "bursar.shipper" -}}
- name: bursar-ship
  image: {{ include "bursar.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [ledger, backup, --data-dir, /var/lib/bursar/ledger, --to, /var/lib/bursar-copies/$(POD_NAME), --every, {{ .Values.shipping.every }}]
  restartPolicy: Always
  env:
    - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  resources:
    {{- toYaml .Values.shipping.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
    privileged: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile: { type: RuntimeDefault }
  volumeMounts:
    - { name: bursar-data, mountPath: /var/lib/bursar, readOnly: true }
    - { name: bursar-copies, mountPath: /var/lib/bursar-copies }
{{- end -}}

{{/* Its volumes, but for the ledger's where that is a claim. */}}
{{- define "bursar.volumes" -}}
- name: bursar-config
  configMap: { name: {{ include "bursar.fullname" . }} }
- name: bursar-admin
  secret:
    secretName: {{ include "bursar.tokenSecret" . }}
    defaultMode: 0444
    items: [{ key: {{ .Values.admin.tokenSecret.key }}, path: token }]
{{- with include "bursar.tokenSources" . }}
- name: bursar-admin-tokens
  projected:
    defaultMode: 0444
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .Values.admin.tls.secretName }}
- name: bursar-admin-tls
  secret: { secretName: {{ . }}, defaultMode: 0444 }
{{- end }}
{{- with .Values.admin.tls.clientSecretName }}
- name: bursar-admin-client
  secret: { secretName: {{ . }}, defaultMode: 0444 }
{{- end }}
{{- range .Values.secrets }}
- name: {{ printf "secret-%s" . }}
  secret: { secretName: {{ . }}, defaultMode: 0444 }
{{- end }}
{{- with .Values.shipping.volume }}
- name: bursar-copies
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .Values.persistence.enabled }}
- name: bursar-data
  emptyDir: { sizeLimit: {{ .Values.persistence.sizeLimit }} }
{{- end }}
{{- end -}}

{{- define "bursar.injectSecret" -}}
{{- default (printf "%s-tls" (include "bursar.fullname" .)) .Values.inject.certificate.secretName -}}
{{- end -}}

{{/* What `bursar inject` reads. */}}
{{- define "bursar.injectSettings" -}}
{{- $sidecar := .Values.inject.sidecar -}}
{{- $settings := dict "image" (include "bursar.image" .) "image_pull_policy" .Values.image.pullPolicy "bind_address" .Values.bindAddress -}}
{{- $secrets := list -}}
{{- range $sidecar.imagePullSecrets -}}
{{- $secrets = append $secrets .name -}}
{{- end -}}
{{- $_ := set $settings "image_pull_secrets" $secrets -}}
{{- $_ := set $settings "config_map" $sidecar.configMap -}}
{{- $_ := set $settings "admin_secret" $sidecar.adminSecret -}}
{{- with $sidecar.dataVolume -}}
{{- $_ := set $settings "data_volume" . -}}
{{- end -}}
{{- $_ := set $settings "resources" .Values.resources -}}
{{- $_ := set $settings "base_urls" $sidecar.baseUrls -}}
{{- $_ := set $settings "env" $sidecar.env -}}
{{- $_ := set $settings "drain_seconds" (int .Values.drainSeconds) -}}
{{- $_ := set $settings "host_network" $sidecar.hostNetwork -}}
{{- $_ := set $settings "on_mistake" $sidecar.onMistake -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* A webhook of the configuration; `path` and `selector` are its own. */}}
{{- define "bursar.webhook" -}}
{{- $ := .root -}}
- name: {{ .name }}
  clientConfig:
    service:
      name: {{ include "bursar.fullname" $ }}
      namespace: {{ $.Release.Namespace }}
      path: {{ .path }}
      port: 443
    {{- with $.Values.inject.certificate.caBundle }}
    caBundle: {{ . }}
    {{- end }}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: {{ $.Values.inject.failurePolicy }}
  timeoutSeconds: {{ $.Values.inject.timeoutSeconds }}
  reinvocationPolicy: IfNeeded
  matchPolicy: Equivalent
  rules: [{ operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods], scope: Namespaced }]
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: {{ toJson (append $.Values.inject.excludedNamespaces $.Release.Namespace | uniq) }}
      - { key: bursar.dev/inject, operator: {{ .labelled }}, values: [enabled] }
{{- end -}}
