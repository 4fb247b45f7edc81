{{- define "sens.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if gt (len $name) 30 -}}
{{- fail (printf "fullnameOverride: the name %q has %d characters; the names of pods leave room for 30. Set a shorter fullnameOverride." $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch `^[a-z]([a-z0-9-]*[a-z0-9])?$` $name) -}}
{{- fail (printf "fullnameOverride: the release's name %q can't begin the names of Services: they begin with a letter and have only a-z, 0-9 and -. Set a fullnameOverride." $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "sens.selector" -}}
app.kubernetes.io/name: sens-platform
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "sens.labels" -}}
{{ include "sens.selector" . }}
app.kubernetes.io/part-of: sens-platform
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Name, namespace and labels of an object. */}}
{{- define "sens.metadata" -}}
name: {{ include "sens.fullname" .root }}-{{ .name | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "sens.labels" . | nindent 2 }}
{{- end -}}

{{- define "sens.secretName" -}}
{{- if .Values.trialSecret.enabled }}{{ include "sens.fullname" . }}-trial{{ else }}{{ .Values.existingSecret }}{{ end -}}
{{- end -}}

{{/* The platform's image of a component. */}}
{{- define "sens.image" -}}
{{- $tag := .root.Values.images.tag | default .root.Chart.AppVersion -}}
{{- include "sens.reference" (dict "repository" (printf "%s/%s" (.root.Values.images.registry | trimSuffix "/") .image) "tag" $tag "digest" (index .root.Values.images.digests .image)) -}}
{{- end -}}

{{- define "sens.reference" -}}
{{ .repository }}:{{ .tag }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "sens.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sens.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What every pod has: where it runs, as whom. Arguments: root, component, user, values. */}}
{{- define "sens.pod" -}}
serviceAccountName: {{ include "sens.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "sens.podSecurity" . | nindent 2 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "sens.selector" . | nindent 8 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations of a pod: a change of what it reads at its start restarts it. */}}
{{- define "sens.podAnnotations" -}}
{{- with .checksum }}
checksum/config: {{ . | sha256sum }}
{{- end }}
{{- with .root.Values.trialSecret }}
{{- if .enabled }}
checksum/secret: {{ toJson . | sha256sum }}
{{- end }}
{{- end }}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Probes of the platform's own services. Argument: port's name. */}}
{{- define "sens.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Longer than the time to finish, the pause before the stop (5 s) and the process's own end. */}}
{{- define "sens.graceSeconds" -}}
{{ add (ceil .Values.shutdownSeconds) 15 }}
{{- end -}}

{{- define "sens.commonEnv" -}}
- name: SENS_LOG__LEVEL
  value: {{ .Values.logLevel | quote }}
- name: SENS_SHUTDOWN_SECONDS
  value: {{ .Values.shutdownSeconds | quote }}
{{- end -}}

{{/* Of what is public: nothing is served that came over plain HTTP. */}}
{{- define "sens.httpsEnv" -}}
{{- $i := .Values.ingress -}}
{{- if and $i.enabled $i.tls.enabled }}
- name: SENS_HTTPS__ONLY
  value: {{ $i.tls.only | quote }}
- name: SENS_HTTPS__HSTS_SECONDS
  value: {{ int64 $i.tls.hstsSeconds | quote }}
{{- end }}
{{- end -}}

{{/* Settings of a component's own "env" value, in a fixed order. */}}
{{- define "sens.ownEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "sens.natsUrl" -}}
{{- if .Values.nats.embedded }}nats://{{ include "sens.fullname" . }}-nats:4222{{ else }}{{ .Values.nats.url }}{{ end -}}
{{- end -}}

{{/* Keys of the secret with the services' own credentials, of the services that are there. */}}
{{- define "sens.ownKeys" -}}
{{- $keys := list "postgres-api-password" "postgres-worker-password" "nats-administrator-password" "nats-api-password" "nats-ingestion-password" "nats-telemetry-password" -}}
{{- if .Values.httpIngestion.enabled }}{{ $keys = append $keys "nats-http-ingestion-password" }}{{ end -}}
{{- toJson $keys -}}
{{- end -}}

{{/* "true" where the services' own credentials are all there. */}}
{{- define "sens.perService" -}}
{{- $wanted := toString .Values.perServiceCredentials -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") .Values.trialSecret.enabled) -}}
true
{{- else if and (eq $wanted "auto") .Values.existingSecret -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace .Values.existingSecret -}}
{{- $has := not (empty $secret) -}}
{{- range fromJsonArray (include "sens.ownKeys" .) -}}
{{- if not (hasKey (dig "data" dict ($secret | default dict)) .) }}{{ $has = false }}{{ end -}}
{{- end -}}
{{- if $has }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* "true" where the embedded NATS has a user for each service. */}}
{{- define "sens.natsUsers" -}}
{{- if and .Values.nats.embedded (not .Values.nats.requireToken) }}{{ include "sens.perService" . }}{{ end -}}
{{- end -}}

{{/* The login of a service in the database, where the secret has its password. Arguments: root, name (of the setting), key. */}}
{{- define "sens.loginEnv" -}}
{{- if ne (toString .root.Values.perServiceCredentials) "false" -}}
{{- include "sens.secretEnv" (dict "root" .root "name" .name "key" .key "optional" (not (include "sens.perService" .root))) -}}
{{- end -}}
{{- end -}}

{{/* Arguments: root, user (of NATS), key (of its password in the secret). */}}
{{- define "sens.natsEnv" -}}
{{- $users := include "sens.natsUsers" .root -}}
{{- $user := .user -}}
{{- $key := .key -}}
{{- with .root -}}
- name: SENS_NATS__URL
  value: {{ include "sens.natsUrl" . | quote }}
- name: SENS_NATS__REPLICAS
  value: {{ .Values.nats.streamReplicas | quote }}
- name: SENS_NATS__STREAM_MAX_BYTES
  value: {{ int64 .Values.nats.streamMaxBytes | quote }}
{{- if $users }}
- name: SENS_NATS__USER
  value: {{ $user }}
{{ include "sens.secretEnv" (dict "root" . "name" "SENS_NATS__PASSWORD" "key" $key) }}
{{- else }}
{{ include "sens.secretEnv" (dict "root" . "name" "SENS_NATS__USER" "key" "nats-user" "optional" true) }}
{{ include "sens.secretEnv" (dict "root" . "name" "SENS_NATS__PASSWORD" "key" "nats-password" "optional" true) }}
{{ include "sens.secretEnv" (dict "root" . "name" "SENS_NATS__TOKEN" "key" "nats-token" "optional" (not .Values.nats.requireToken)) }}
{{- end }}
{{- if and (not .Values.nats.embedded) .Values.nats.caSecret }}
- name: SENS_NATS__CA_FILE
  value: /etc/sens/nats-ca/ca.crt
{{- end }}
{{- if and (not .Values.nats.embedded) .Values.nats.credentialsSecret }}
- name: SENS_NATS__CREDENTIALS_FILE
  value: /etc/sens/nats-credentials/nats.creds
{{- end }}
{{- end -}}
{{- end -}}

{{- define "sens.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "sens.secretName" .root }}
      key: {{ .key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end -}}

{{/* The database, as its owner. */}}
{{- define "sens.databaseEnv" -}}
{{ include "sens.databaseAddress" . }}
{{ include "sens.secretEnv" (dict "root" . "name" "SENS_DATABASE__PASSWORD" "key" "postgres-password") }}
{{- end -}}

{{- define "sens.databaseAddress" -}}
- name: SENS_DATABASE__HOST
  value: {{ ternary (printf "%s-timescaledb" (include "sens.fullname" .)) .Values.database.host .Values.database.embedded | quote }}
- name: SENS_DATABASE__PORT
  value: {{ ternary 5432 .Values.database.port .Values.database.embedded | quote }}
- name: SENS_DATABASE__NAME
  value: {{ ternary "sens_platform" .Values.database.name .Values.database.embedded | quote }}
- name: SENS_DATABASE__USER
  value: {{ ternary "sens_platform" .Values.database.user .Values.database.embedded | quote }}
- name: SENS_DATABASE__SSL
  value: {{ ternary "disable" .Values.database.ssl .Values.database.embedded | quote }}
{{- if and (not .Values.database.embedded) .Values.database.caSecret }}
- name: SENS_DATABASE__CA_FILE
  value: /etc/sens/database-ca/ca.crt
{{- end }}
{{- end -}}

{{/* Files from secrets, as a list of (volume, secret, folder). Argument: root, needs (list of nats, database, mqtt). */}}
{{- define "sens.files" -}}
{{- $v := .root.Values -}}
{{- $files := list -}}
{{- if and (has "nats" .needs) (not $v.nats.embedded) -}}
{{- with $v.nats.caSecret }}{{ $files = append $files (dict "volume" "nats-ca" "secret" .) }}{{ end -}}
{{- with $v.nats.credentialsSecret }}{{ $files = append $files (dict "volume" "nats-credentials" "secret" .) }}{{ end -}}
{{- end -}}
{{- if and (has "database" .needs) (not $v.database.embedded) -}}
{{- with $v.database.caSecret }}{{ $files = append $files (dict "volume" "database-ca" "secret" .) }}{{ end -}}
{{- end -}}
{{- if and (has "mqtt" .needs) $v.mqtt.url -}}
{{- with $v.mqtt.caSecret }}{{ $files = append $files (dict "volume" "mqtt-ca" "secret" .) }}{{ end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{- define "sens.volumeMounts" -}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- range fromJsonArray (include "sens.files" .) }}
  - {name: {{ .volume }}, mountPath: /etc/sens/{{ .volume }}, readOnly: true}
  {{- end }}
  {{- if eq (get . "component") "mqtt-ingestion-worker" }}
  {{- range $index, $credential := .root.Values.brokers.credentials }}
  - {name: broker-{{ $index }}, mountPath: {{ printf "/etc/sens/brokers/%s/%s" $credential.tenant $credential.name | quote }}, readOnly: true}
  {{- end }}
  {{- end }}
  {{- if eq (get . "component") "http-ingestion-worker" }}
  {{- range $index, $key := .root.Values.httpIngestion.asKeys }}
  - {name: as-key-{{ $index }}, mountPath: {{ printf "/etc/sens/sources/%s/%s" $key.tenant $key.source | quote }}, readOnly: true}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "sens.volumes" -}}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- range fromJsonArray (include "sens.files" .) }}
  - name: {{ .volume }}
    secret: {secretName: {{ .secret }}}
  {{- end }}
  {{- if eq (get . "component") "mqtt-ingestion-worker" }}
  {{- range $index, $credential := .root.Values.brokers.credentials }}
  - name: broker-{{ $index }}
    # A source whose secret is missing says so, and no other one waits for it.
    secret: {secretName: {{ $credential.secret }}, optional: true}
  {{- end }}
  {{- end }}
  {{- if eq (get . "component") "http-ingestion-worker" }}
  {{- range $index, $key := .root.Values.httpIngestion.asKeys }}
  - name: as-key-{{ $index }}
    # A source whose secret is missing says so, and takes nothing meanwhile.
    secret: {secretName: {{ $key.secret }}, optional: true}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "sens.mqttUrl" -}}
{{- if .Values.mqtt.url }}{{ .Values.mqtt.url }}{{ else }}mqtt://{{ include "sens.fullname" . }}-mock-mqtt-broker:1884{{ end -}}
{{- end -}}

{{/* Topic filters as the worker subscribes to them: shared from one pod on, so that a second one changes no subscription. The group is the
     installation's own: two of them at one broker each get every message. */}}
{{- define "sens.topicFilters" -}}
{{- $i := .Values.ingestion -}}
{{- $group := $i.shareGroup | default (printf "%s-%s" .Release.Namespace (include "sens.fullname" .)) -}}
{{- $filters := list -}}
{{- range $i.topicFilters -}}
{{- $filters = append $filters (ternary (printf "$share/%s/%s" $group .) . (and $i.shared (not (hasPrefix "$share/" .)))) -}}
{{- end -}}
{{- toJson $filters -}}
{{- end -}}

{{/* Port in a URL, or the one that its scheme has. Arguments: url. */}}
{{- define "sens.portOf" -}}
{{- $schemes := dict "mqtt" "1883" "mqtts" "8883" "nats" "4222" "tls" "4222" "ws" "80" "wss" "443" -}}
{{- $parsed := urlParse .url -}}
{{- regexFind ":[0-9]+$" $parsed.host | trimPrefix ":" | default (get $schemes $parsed.scheme) -}}
{{- end -}}

{{/* Annotations that tell the ingress controller its limits, whichever controller that is. Argument: ingress.limits. */}}
{{- define "sens.limits" -}}
{{- $l := . -}}
{{- $found := dict -}}
{{- range $name, $text := $l.annotations -}}
{{- $text = $text | replace "$BODY_BYTES" (int64 $l.bodyBytes | toString) | replace "$REQUESTS_PER_SECOND" (int64 $l.requestsPerSecond | toString) -}}
{{- $text = $text | replace "$CONNECTIONS" (int64 $l.connections | toString) | replace "$SILENT_SECONDS" (int64 $l.silentSeconds | toString) -}}
{{- $_ := set $found $name $text -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* Host in a URL, without brackets. Argument: the URL. */}}
{{- define "sens.hostOf" -}}
{{- regexReplaceAll ":[0-9]+$" (urlParse .).host "" | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}

{{- define "sens.grace" -}}
terminationGracePeriodSeconds: {{ include "sens.graceSeconds" . }}
{{- end -}}

{{/* Argo CD applies what has a lower wave first, and waits until it is healthy: stores, then the schema, then who uses it. */}}
{{- define "sens.wave" -}}
argocd.argoproj.io/sync-wave: {{ . | quote }}
{{- end -}}
