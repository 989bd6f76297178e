{{- define "epochal.name" -}}
{{- $name := regexReplaceAll "-+$" (default .Release.Name .Values.fullnameOverride | trunc 40) "" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]*$" $name) -}}
{{- fail (printf "fullnameOverride: Services and the cluster cannot be called %s, as the release is: give lower-case letters, digits and dashes after a letter" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "epochal.cluster" -}}
{{- default (include "epochal.name" .) .Values.cluster.name -}}
{{- end -}}

{{- define "epochal.selector" -}}
app.kubernetes.io/name: epochal
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Of every object. */}}
{{- define "epochal.labels" -}}
{{ include "epochal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "epochal.tokens" -}}
{{- default (printf "%s-tokens" (include "epochal.name" .)) .Values.tokens.existingSecret -}}
{{- end -}}

{{- define "epochal.mlflowSecret" -}}
{{- default (printf "%s-mlflow" (include "epochal.name" .)) .Values.mlflow.existingSecret -}}
{{- end -}}

{{- define "epochal.databaseSecret" -}}
{{- default (printf "%s-postgresql" (include "epochal.name" .)) .Values.database.existingSecret -}}
{{- end -}}

{{- define "epochal.storageClaim" -}}
{{- default (printf "%s-storage" (include "epochal.name" .)) .Values.storage.existingClaim -}}
{{- end -}}

{{- define "epochal.serverUrl" -}}
http://{{ include "epochal.name" . }}-server:8700
{{- end -}}

{{- define "epochal.mlflowUrl" -}}
http://{{ include "epochal.name" . }}-mlflow:5000
{{- end -}}

{{/* As browsers write it. */}}
{{- define "epochal.mlflowPage" -}}
{{- if .Values.mlflow.page -}}
{{- .Values.mlflow.page -}}
{{- else if and .Values.ingress.enabled .Values.ingress.mlflowHost -}}
{{- ternary "https" "http" (not (empty .Values.ingress.tlsSecret)) }}://{{ .Values.ingress.mlflowHost -}}
{{- else -}}
http://127.0.0.1:5000
{{- end -}}
{{- end -}}

{{/* Without passwords, which are in PGPASSWORD: URLs are shown in logs and arguments. */}}
{{- define "epochal.ledgerUrl" -}}
{{- default (printf "postgresql://epochal@%s-postgresql/epochal" (include "epochal.name" .)) .Values.database.ledgerUrl -}}
{{- end -}}

{{- define "epochal.mlflowDatabaseUrl" -}}
{{- default (printf "postgresql://mlflow@%s-postgresql/mlflow" (include "epochal.name" .)) .Values.database.mlflowUrl -}}
{{- end -}}

{{/* What the `restricted` Pod Security Standard asks of a pod that runs as that `user`, and more. */}}
{{- define "epochal.podAs" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Of our image. */}}
{{- define "epochal.pod" -}}
{{- include "epochal.podAs" (dict "root" . "user" 1000) -}}
{{- end -}}

{{- define "epochal.container" -}}
# What it says last is then in the pod's status, where `epochal cluster status` finds it.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "epochal.imageName" -}}
{{- $name := required "image.name: name the image that `make image` built, with its tag" .Values.image.name -}}
{{- include "epochal.pinned" (list "image.name" $name "localhost/epochal:0.1.0") -}}
{{- end -}}

{{/* Of another major version, which a moving tag may be one day, PostgreSQL does not read its files. */}}
{{- define "epochal.databaseImage" -}}
{{- include "epochal.pinned" (list "database.image" .Values.database.image "docker.io/library/postgres:17.6") -}}
{{- end -}}

{{- define "epochal.pinned" -}}
{{- if regexMatch "(:latest|^[^:@]+|/[^:@]*|:)$" (index . 1) -}}
{{- fail (printf "%s: %s has no tag that stays the same: add one, as in %s, or a digest" (index . 0) (index . 1) (index . 2)) -}}
{{- end -}}
{{- index . 1 -}}
{{- end -}}

{{- define "epochal.image" -}}
image: {{ include "epochal.imageName" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{ include "epochal.container" . }}
{{- end -}}

{{/* Of what runs for moments: migrations, hooks, tests. */}}
{{- define "epochal.small" -}}
resources:
  requests: {cpu: 100m, memory: 512Mi}
  limits: {memory: 1Gi}
{{- end -}}

{{- define "epochal.mlflowCredentials" -}}
- name: MLFLOW_TRACKING_URI
  value: {{ include "epochal.mlflowUrl" . }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ include "epochal.mlflowSecret" . | quote }}, key: username}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "epochal.mlflowSecret" . | quote }}, key: password}}
{{- end -}}

{{- define "epochal.mlflowStore" -}}
- name: MLFLOW_BACKEND_STORE_URI
  value: {{ include "epochal.mlflowDatabaseUrl" . | replace "postgresql://" "postgresql+psycopg://" | quote }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "epochal.databaseSecret" . | quote }}, key: mlflow-password}}
{{- include "epochal.databaseCaVariable" . }}
- name: MLFLOW_ARTIFACTS_DESTINATION
  value: {{ default "/var/lib/epochal/mlflow" .Values.mlflow.artifacts | quote }}
- {name: MLFLOW_DISABLE_TELEMETRY, value: "true"}
- {name: HOME, value: /tmp}
{{- with .Values.mlflow.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A value of a Secret that is made once: the one that is there, or a new one. */}}
{{- define "epochal.kept" -}}
{{- $secret := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict -}}
{{- get (get $secret "data" | default dict) .key | default (b64enc (default (randAlphaNum 40) .value)) -}}
{{- end -}}

{{/* Whose certificates are believed: a volume, its mount and libpq's variable for it. */}}
{{- define "epochal.databaseCa" -}}
{{- with .Values.database.caSecret }}
- name: database-ca
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "epochal.databaseCaMount" -}}
{{- if .Values.database.caSecret }}
- {name: database-ca, mountPath: /etc/epochal/database, readOnly: true}
{{- end }}
{{- end -}}

{{- define "epochal.databaseCaVariable" -}}
{{- if .Values.database.caSecret }}
- {name: PGSSLROOTCERT, value: /etc/epochal/database/ca.crt}
{{- end }}
{{- end -}}
