{{/* Other releases of this chart in the cluster: which of them, and of this one, could not do their work any more. */}}

{{/* Of (list root object namespace): in words, which other release made this object. Empty for anything else. */}}
{{- define "ssm.otherRelease" -}}
{{- $root := index . 0 -}}
{{- $labels := (index . 1).metadata.labels | default dict -}}
{{- $release := get $labels "app.kubernetes.io/instance" -}}
{{- $isOwn := and (eq $release $root.Release.Name) (eq (index . 2) $root.Release.Namespace) -}}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "ssm-session-operator") (not $isOwn) -}}
the release {{ $release }} in namespace {{ index . 2 }}
{{- end -}}
{{- end }}

{{/* What is in both lists of namespaces, in words. An empty list means all of them; empty words, that none is in both. */}}
{{- define "ssm.shared" -}}
{{- $one := index . 0 -}}
{{- $other := index . 1 -}}
{{- if and $one $other -}}
{{- $both := list -}}
{{- range $one -}}
{{- if has . $other -}}
{{- $both = append $both . -}}
{{- end -}}
{{- end -}}
{{- join ", " $both -}}
{{- else -}}
{{- concat $one $other | join ", " | default "all namespaces" -}}
{{- end -}}
{{- end }}

{{/*
What is in the way of running beside others, in sentences that say what to do, as JSON: `ours`, since this release would
keep another from working, and `theirs`, since another keeps this one from working.

A namespace is one installation. Of two releases in different ones, each refuses everybody else's controllers the slices and
statuses of sessions in the namespaces that it serves; its other policies are about its own namespace and accounts.

Without a cluster, as for `helm template`, nobody else is seen. A release that makes nothing outside of its namespace does
not look there either: whoever installs it may have no right to.
*/}}
{{- define "ssm.others" -}}
{{- $home := .Release.Namespace -}}
{{- $policy := .Values.admissionPolicy -}}
{{- $user := include "ssm.users" (list . "controls") | fromJsonArray | first -}}
{{- $everywhere := or .Values.rbac.create $policy.enabled -}}
{{- $apart := "or give each watchNamespaces of its own, or uninstall the other first" -}}
{{- $ours := list -}}
{{- $theirs := list -}}
{{- $running := list -}}
{{- /* Whoever may edit a namespace may make Deployments of any labels there, but nothing of the cluster's. */ -}}
{{- $known := list -}}
{{- range $kind := ternary (list "ValidatingAdmissionPolicyBinding" "ClusterRoleBinding") (list) $everywhere -}}
{{- $group := ternary "rbac.authorization.k8s.io" "admissionregistration.k8s.io" (eq $kind "ClusterRoleBinding") -}}
{{- range (lookup (printf "%s/v1" $group) $kind "" "").items -}}
{{- /* Its name is made by `ssm.clusterName`. */ -}}
{{- $known = append $known (include "ssm.otherRelease" (list $ . (splitList "." .metadata.name | first))) -}}
{{- end -}}
{{- end -}}
{{- range (lookup "apps/v1" "Deployment" (ternary "" $home $everywhere) "").items -}}
{{- $other := include "ssm.otherRelease" (list $ . .metadata.namespace) -}}
{{- $isKnown := or (eq .metadata.namespace $home) (has $other $known) -}}
{{- if and $other $isKnown (has (get .spec.template.metadata.labels "app.kubernetes.io/component") (list "controller" "all-in-one")) -}}
{{- $running = append $running $other -}}
{{- $pod := .spec.template.spec -}}
{{- $served := list -}}
{{- range regexFindAll "--watch-namespace=[-a-z0-9]+" (toString $pod.containers) -1 -}}
{{- $served = append $served (trimPrefix "--watch-namespace=" .) -}}
{{- end -}}
{{- $where := include "ssm.shared" (list $.Values.watchNamespaces $served) -}}
{{- $theirUser := printf "system:serviceaccount:%s:%s" .metadata.namespace $pod.serviceAccountName -}}
{{- if eq .metadata.namespace $home -}}
{{- $ours = append $ours (printf "%s is there already, and one namespace is one installation: install into another, or uninstall that one first" $other) -}}
{{- else if and $where $policy.enabled (has "Deny" $policy.actions) (not (has $theirUser $policy.exemptUsers)) -}}
{{- $ours = append $ours (printf "the admission policies of this release would refuse the controllers of %s in %s: add %q to admissionPolicy.exemptUsers here, %s" $other $where $theirUser $apart) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $everywhere -}}
{{- range (lookup "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicyBinding" "" "").items -}}
{{- $namespace := splitList "." .metadata.name | first -}}
{{- $other := include "ssm.otherRelease" (list $ . $namespace) -}}
{{- $runs := has $other $running -}}
{{- $served := list -}}
{{- range dig "matchResources" "namespaceSelector" "matchExpressions" list .spec -}}
{{- $served = .values -}}
{{- end -}}
{{- $where := include "ssm.shared" (list $.Values.watchNamespaces $served) -}}
{{- $concerns := regexMatch (ternary "-(slices|sessions|listeners)$" "-(slices|sessions)$" (eq $namespace $home)) .metadata.name -}}
{{- if and $other $where $concerns (has "Deny" .spec.validationActions) -}}
{{- $rules := lookup "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "" .spec.policyName -}}
{{- if and $rules (not (contains (quote $user) (toString $rules.spec))) -}}
{{- if not $runs -}}
{{- $theirs = append $theirs (printf "%s, which runs no more, has left a policy behind that refuses the controllers of this release: kubectl delete validatingadmissionpolicybinding %s" $other .metadata.name) -}}
{{- else if ne $namespace $home -}}
{{- $theirs = append $theirs (printf "the admission policies of %s refuse the controllers of this release in %s: add %q to admissionPolicy.exemptUsers there, %s" $other $where $user $apart) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "ours" (uniq $ours) "theirs" (uniq $theirs) | toJson -}}
{{- end }}
