{{- /*
The sidecar for a chart of a team's own: a native one (an init container that goes on running), so it is there before the application
and ends after it. It owns no jobs (agent.role client): it takes requests on localhost and passes them to the members. Neither of its
probes is a readiness probe: while the members are away the application stays in service.

  initContainers: {{- include "carillon.sidecar" (dict "root" . "service" "billing" "port" 8080) | nindent 2 }}
  volumes: {{- include "carillon.sidecarVolumes" (dict "root" .) | nindent 2 }}

"root" is the context of a chart that depends on this one, whose values stand under `carillon` there, or are this chart's own.
With "role" "member" the sidecar owns jobs itself, as the members of mode cluster do, and needs their database (in mode raft-cluster
there is none: a sidecar has no volume that a log could be kept on). The injector is given
what stands here for each role (carillon.sidecarPart), so its pods are these.
*/ -}}
{{- define "carillon.sidecarRoot" -}}
{{- $root := .root -}}
{{- $sub := (($root.Subcharts | default dict).carillon) | default $root -}}
{{- toJson (dict "Values" $sub.Values "Release" $root.Release "Chart" $sub.Chart "role" (.role | default "client")) -}}
{{- end -}}

{{- define "carillon.sidecarSecrets" -}}
{{- $v := .Values -}}
{{- $s := dict "cluster" $v.cluster.secretName "cluster-tls" $v.cluster.tlsSecret "consul" $v.consul.tokenSecret "consul-ca" $v.consul.caSecret "tokens" $v.api.tokensSecret -}}
{{- if eq .role "member" -}}
{{- $s = merge $s (dict "mysql" (required "mysql.passwordSecret is needed for members" $v.mysql.passwordSecret) "mysql-ca" $v.mysql.caSecret "signing" $v.callback.signingKeysSecret) -}}
{{- end -}}
{{- range $folder, $secret := $s -}}{{- if $secret }}
{{ $folder }}: {{ $secret | quote }}
{{- end -}}{{- end -}}
{{- end -}}

{{- define "carillon.sidecar" -}}
{{- $r := include "carillon.sidecarRoot" . | fromJson -}}
{{- $v := $r.Values -}}
{{- if and (eq $r.role "member") (include "carillon.isRaft" $r) -}}
{{- fail "a sidecar is no member in mode raft-cluster: it has no volume for the log" -}}
{{- end -}}
- name: carillon
  image: {{ include "carillon.image" $r }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  restartPolicy: Always
  args:
    - agent
    - --set=agent.role={{ $r.role }}
    - --set=agent.shutdown_grace={{ $v.shutdownGraceSeconds }}s
    - --set=log.format=json
    - --set=api.listen=127.0.0.1:{{ int $v.api.port }}
    - --set=ops.listen={{ include "carillon.anyIp" $r }}:{{ int $v.ops.port }}
    # With app.register the application is reached here, and not at its node, where Consul's agent may be.
    - --set=app.address=$(POD_IP)
    - --set=cluster.mode=consul
    - --set=cluster.name={{ $v.cluster.name }}
    - --set=consul.address={{ $v.consul.address | default (printf "%s:8500" (include "carillon.hostIp" $r)) }}
    {{- if $v.cluster.secretName }}
    - --set=cluster.secret_file=/etc/carillon/cluster/secret
    {{- end }}
    {{- if $v.cluster.tlsSecret }}
    - --set=cluster.tls_ca=/etc/carillon/cluster-tls/ca.crt
    - --set=cluster.tls_cert=/etc/carillon/cluster-tls/tls.crt
    - --set=cluster.tls_key=/etc/carillon/cluster-tls/tls.key
    {{- with $v.cluster.tlsServerName }}
    - --set=cluster.tls_server_name={{ . }}
    {{- end }}
    {{- end }}
    {{- if $v.consul.tokenSecret }}
    - --set=consul.token_file=/etc/carillon/consul/token
    {{- end }}
    {{- if $v.consul.caSecret }}
    - --set=consul.tls_ca=/etc/carillon/consul-ca/ca.crt
    {{- end }}
    {{- with $v.consul.tlsServerName }}
    - --set=consul.tls_server_name={{ . }}
    {{- end }}
    {{- if $v.api.tokensSecret }}
    - --set=api.tokens_file=/etc/carillon/tokens/tokens.yaml
    {{- end }}
    {{- if eq $r.role "member" }}
    - --set=cluster.listen={{ include "carillon.podIp" $r }}:7421
    - --set=store.driver=mysql
    - --set=store.mysql.host={{ required "mysql.host is needed for members" $v.mysql.host }}
    - --set=store.mysql.port={{ int $v.mysql.port }}
    - --set=store.mysql.user={{ $v.mysql.user }}
    - --set=store.mysql.database={{ $v.mysql.database }}
    - --set=store.mysql.password_file=/etc/carillon/mysql/password
    {{- if $v.mysql.caSecret }}
    - --set=store.mysql.tls_mode=verify
    - --set=store.mysql.tls_ca=/etc/carillon/mysql-ca/ca.crt
    {{- end }}
    {{- if $v.callback.signingKeysSecret }}
    - --set=callback.signing_keys_file=/etc/carillon/signing/keys
    {{- end }}
    {{- if $v.callback.headerSecrets }}
    - --set=callback.secrets_dir=/etc/carillon/headers
    {{- end }}
    {{- end }}
    {{- with .service }}
    - --set=app.service={{ . }}
    {{- end }}
    {{- with .port }}
    - --set=app.port={{ int . }}
    {{- end }}
  env: {{- include "carillon.env" $r | nindent 4 }}
  ports:
    - {name: ops, containerPort: {{ int $v.ops.port }}}
    {{- if eq $r.role "member" }}
    - {name: peers, containerPort: 7421}
    {{- end }}
  {{- include "carillon.preStop" (dict) | nindent 2 }}
  {{- include "carillon.probes" $r | nindent 2 }}
  securityContext: {{- include "carillon.securityContext" $r | nindent 4 }}
  resources: {{- toYaml $v.resources | nindent 4 }}
  volumeMounts:
    - {name: carillon-data, mountPath: /data}
    {{- range $folder, $secret := include "carillon.sidecarSecrets" $r | fromYaml }}
    - {name: carillon-{{ $folder }}, mountPath: /etc/carillon/{{ $folder }}, readOnly: true}
    {{- end }}
    {{- range $ns, $secret := ternary $v.callback.headerSecrets dict (eq $r.role "member") }}
    - {name: carillon-headers-{{ $ns }}, mountPath: /etc/carillon/headers/{{ $ns }}, readOnly: true}
    {{- end }}
  workingDir: /data
{{- end -}}

{{- define "carillon.sidecarVolumes" -}}
{{- $r := include "carillon.sidecarRoot" . | fromJson -}}
- {name: carillon-data, emptyDir: {sizeLimit: 64Mi}}
{{- range $folder, $secret := include "carillon.sidecarSecrets" $r | fromYaml }}
- {name: carillon-{{ $folder }}, secret: {secretName: {{ $secret | quote }}, defaultMode: 0444}}
{{- end }}
{{- range $ns, $secret := ternary $r.Values.callback.headerSecrets dict (eq $r.role "member") }}
- {name: carillon-headers-{{ $ns }}, secret: {secretName: {{ $secret | quote }}, defaultMode: 0444}}
{{- end }}
{{- end -}}

{{- /* What the injector puts into a pod for a role: the part of a pod's spec that is the sidecar. */ -}}
{{- define "carillon.sidecarPart" -}}
initContainers: {{- include "carillon.sidecar" . | nindent 2 }}
volumes: {{- include "carillon.sidecarVolumes" . | nindent 2 }}
terminationGracePeriodSeconds: {{ add (include "carillon.sidecarRoot" . | fromJson).Values.shutdownGraceSeconds 10 }}
{{- end -}}
