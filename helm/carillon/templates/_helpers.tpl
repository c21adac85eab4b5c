{{- define "carillon.name" -}}
{{- printf "%s" (ternary .Release.Name (printf "%s-carillon" .Release.Name) (contains "carillon" .Release.Name)) | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "carillon.selector" -}}
app.kubernetes.io/name: carillon
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "carillon.labels" -}}
{{ include "carillon.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Its pods are none of the members' Service. */ -}}
{{- define "carillon.injectorSelector" -}}
app.kubernetes.io/name: carillon-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "carillon.injectorLabels" -}}
{{ include "carillon.injectorSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "carillon.testLabels" -}}
app.kubernetes.io/name: carillon-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Values that are wrong together, which a schema cannot say. */ -}}
{{- define "carillon.check" -}}
{{- $ports := list (int .Values.api.port) (int .Values.ops.port) 7421 7422 -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail "api.port and ops.port must differ from each other and from 7421 and 7422, where members talk" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}

{{- define "carillon.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}

{{- /* Nothing but the program runs in the container, and it needs nothing of the node. */ -}}
{{- define "carillon.securityContext" -}}
runAsNonRoot: true
runAsUser: 7420
runAsGroup: 7420
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "carillon.env" -}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: CARILLON_AGENT_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end -}}

{{- /* Addresses as they stand before a port. */ -}}
{{- define "carillon.podIp" -}}
{{ ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{- define "carillon.hostIp" -}}
{{ ternary "[$(HOST_IP)]" "$(HOST_IP)" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{- define "carillon.anyIp" -}}
{{ ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{- /* Both clustered modes: members find each other in Consul. */ -}}
{{- define "carillon.clustered" -}}
{{- if ne .Values.mode "standalone" }}yes{{ end -}}
{{- end -}}

{{- define "carillon.isRaft" -}}
{{- if eq .Values.mode "raft-cluster" }}yes{{ end -}}
{{- end -}}

{{- /* Kubernetes runs it as soon as the pod is to end. The sidecar's SIGTERM comes after the application's end, a member's after
preStopWaitSeconds; by then slots are given away, and only what is in flight is waited for. */ -}}
{{- define "carillon.preStop" -}}
lifecycle: {preStop: {exec: {command: [/usr/bin/carillon, drain{{ with .wait }}, --wait={{ . }}s{{ end }}]}}}
{{- end -}}

{{- /* What mode and role have in common, as a map of options. */ -}}
{{- define "carillon.config.consul" -}}
cluster:
  mode: consul
  name: {{ .Values.cluster.name | quote }}
  {{- if .Values.cluster.secretName }}
  secret_file: /etc/carillon/cluster/secret
  {{- end }}
  {{- if .Values.cluster.tlsSecret }}
  tls_ca: /etc/carillon/cluster-tls/ca.crt
  tls_cert: /etc/carillon/cluster-tls/tls.crt
  tls_key: /etc/carillon/cluster-tls/tls.key
  {{- with .Values.cluster.tlsServerName }}
  tls_server_name: {{ . | quote }}
  {{- end }}
  {{- end }}
consul:
  {{- if .Values.consul.tokenSecret }}
  token_file: /etc/carillon/consul/token
  {{- end }}
  {{- if .Values.consul.caSecret }}
  tls_ca: /etc/carillon/consul-ca/ca.crt
  {{- end }}
  {{- with .Values.consul.tlsServerName }}
  tls_server_name: {{ . | quote }}
  {{- end }}
{{- end -}}

{{- /* Whether the API is served to other pods: to those with a token or a certificate. */ -}}
{{- define "carillon.isOpen" -}}
{{- if or .Values.api.tokensSecret .Values.api.clientCaSecret }}yes{{ end -}}
{{- end -}}

{{- define "carillon.config.api" -}}
{{- $wide := include "carillon.isOpen" . -}}
api:
  listen: [{{ printf "%s:%d" (ternary (include "carillon.anyIp" .) "127.0.0.1" (eq $wide "yes")) (int .Values.api.port) | quote }}]
  {{- if $wide }}
  hosts: {{ list (include "carillon.name" .) (printf "%s.%s" (include "carillon.name" .) .Release.Namespace) (printf "%s.%s.svc" (include "carillon.name" .) .Release.Namespace) (printf "%s.%s.svc.cluster.local" (include "carillon.name" .) .Release.Namespace) | toJson }}
  {{- end }}
  {{- if .Values.api.tokensSecret }}
  tokens_file: /etc/carillon/tokens/tokens.yaml
  {{- end }}
  {{- if .Values.api.tlsSecret }}
  tls_cert: /etc/carillon/api-tls/tls.crt
  tls_key: /etc/carillon/api-tls/tls.key
  {{- end }}
  {{- if .Values.api.clientCaSecret }}
  tls_client_ca: /etc/carillon/api-client-ca/ca.crt
  {{- end }}
ops:
  listen: [{{ printf "%s:%d" (include "carillon.anyIp" .) (int .Values.ops.port) | quote }}]
log:
  format: json
{{- end -}}

{{- define "carillon.config.member" -}}
agent:
  data_dir: /data
  shutdown_grace: {{ .Values.shutdownGraceSeconds }}s
{{ include "carillon.config.api" . }}
{{- if or .Values.callback.signingKeysSecret .Values.callback.headerSecrets }}
callback:
  {{- if .Values.callback.signingKeysSecret }}
  signing_keys_file: /etc/carillon/signing/keys
  {{- end }}
  {{- if .Values.callback.headerSecrets }}
  secrets_dir: /etc/carillon/headers
  {{- end }}
{{- end }}
{{- if include "carillon.clustered" . }}
{{ include "carillon.config.consul" . }}
store:
{{- if include "carillon.isRaft" . }}
  driver: raft
  raft:
    voters: {{ .Values.raft.voters }}
{{- else }}
  driver: mysql
  mysql:
    host: {{ required "mysql.host is needed in mode cluster" .Values.mysql.host | quote }}
    port: {{ .Values.mysql.port }}
    user: {{ .Values.mysql.user | quote }}
    database: {{ .Values.mysql.database | quote }}
    password_file: /etc/carillon/mysql/password
    {{- if .Values.mysql.caSecret }}
    tls_mode: verify
    tls_ca: /etc/carillon/mysql-ca/ca.crt
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Folder under /etc/carillon to Secret: those that are given. */ -}}
{{- define "carillon.secrets" -}}
{{- $s := dict "tokens" .Values.api.tokensSecret "api-tls" .Values.api.tlsSecret "api-client-ca" .Values.api.clientCaSecret "signing" .Values.callback.signingKeysSecret -}}
{{- if include "carillon.clustered" . -}}
{{- if not (or .Values.cluster.secretName .Values.cluster.tlsSecret) -}}
{{- fail (printf "cluster.secretName or cluster.tlsSecret is needed in mode %s: agents must know each other" .Values.mode) -}}
{{- end -}}
{{- $s = merge $s (dict "cluster" .Values.cluster.secretName "cluster-tls" .Values.cluster.tlsSecret "consul" .Values.consul.tokenSecret "consul-ca" .Values.consul.caSecret) -}}
{{- if not (include "carillon.isRaft" .) -}}
{{- $s = merge $s (dict "mysql" (required "mysql.passwordSecret is needed in mode cluster" .Values.mysql.passwordSecret) "mysql-ca" .Values.mysql.caSecret) -}}
{{- end -}}
{{- end -}}
{{- range $folder, $secret := $s -}}{{- if $secret }}
{{ $folder }}: {{ $secret | quote }}
{{- end -}}{{- end -}}
{{- end -}}

{{- define "carillon.probes" -}}
startupProbe: {httpGet: {path: /livez, port: ops}, periodSeconds: 2, failureThreshold: 60}
livenessProbe: {httpGet: {path: /livez, port: ops}, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3}
{{- end -}}
