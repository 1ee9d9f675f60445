{{/* Names are fixed: one release to a cluster, for there is one agent to a worker. IAM roles, networks and the injector's certificate know them. */}}

{{- define "multus-vpc.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: multus-vpc
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "multus-vpc.metadata" -}}
name: {{ .name }}
{{- if not .clusterWide }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "multus-vpc.labels" (dict "root" .root "name" (default .name .app)) | nindent 2 }}
{{- end }}

{{- define "multus-vpc.image" -}}
{{- $repository := required "image.repository is not set. No image is published yet: build and push one by make images IMAGE=registry/multus-vpc:tag" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" $repository .Values.image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end -}}
{{- end }}

{{/* Where the pods of a workload go, and who they are. */}}
{{- define "multus-vpc.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "multus-vpc.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "multus-vpc.metadata" (dict "root" .root "name" .account.name "app" .app) | nindent 2 }}
  {{- with .account.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A ClusterRoleBinding of the role to the service account, both of one name. */}}
{{- define "multus-vpc.clusterRoleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  {{- include "multus-vpc.metadata" (dict "root" .root "name" .name "clusterWide" true) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ .account.name }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* Variables out of a mapping of names to texts. */}}
{{- define "multus-vpc.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* NAME=VALUE for a flag, each on a line of its own, for values may have commas. */}}
{{- define "multus-vpc.podEnv" -}}
{{- range $name, $value := . }}{{ printf "%s=%s\n" $name $value }}{{ end }}
{{- end }}

{{/* The agents: that of the values, and its variants, each for the nodes with its label, where the first then is not. */}}
{{- define "multus-vpc.agents" -}}
{{- $first := deepCopy .Values.agent }}
{{- $agents := list (dict "name" "multus-vpc-agent" "agent" $first) }}
{{- $others := list }}
{{- range .Values.agent.variants }}
{{- $agent := set (set (deepCopy $.Values.agent) "nodeSelector" .nodeSelector) "config" .config }}
{{- $agents = append $agents (dict "name" (printf "multus-vpc-agent-%s" .name) "agent" $agent) }}
{{- range $label, $value := .nodeSelector }}
{{- $others = append $others (dict "key" $label "operator" "NotIn" "values" (list $value)) }}
{{- end }}
{{- end }}
{{- if $others }}
{{- $affinity := $first.affinity | default dict }}
{{- $terms := list }}
{{- range dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" (list dict) $affinity }}
{{- $terms = append $terms (set . "matchExpressions" (concat (.matchExpressions | default list) $others)) }}
{{- end }}
{{- $required := dict "nodeSelectorTerms" $terms }}
{{- $_ := set $first "affinity" (mergeOverwrite $affinity (dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" $required))) }}
{{- end }}
{{- toYaml (dict "agents" $agents) }}
{{- end }}
