package dispatcher

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestNoProducerIsCutOff: what was told to producers stays true until the spec says otherwise, whatever is lost or restored.
func TestNoProducerIsCutOff(t *testing.T) {
	t.Parallel()
	plain := &appsv1.Deployment{}
	plain.Spec.Template.Spec.Containers = []corev1.Container{{Name: containerName, Ports: []corev1.ContainerPort{{Name: httpPortName}, {Name: "ops"}}}}
	secured := &appsv1.Deployment{}
	secured.Spec.Template.Spec.Containers = []corev1.Container{{Name: containerName, Ports: []corev1.ContainerPort{{Name: httpsPortName}, {Name: "ops"}}}}
	const host = "://eventflow-dispatcher-main.eventflow-system.svc"
	for name, test := range map[string]struct {
		told       string
		deployment *appsv1.Deployment
		mode       v1alpha1.IngestTLSMode
		wantMode   v1alpha1.IngestTLSMode
		wantURL    string
		wantKept   bool
	}{
		"new":                                {wantMode: v1alpha1.IngestTLSRequired, wantURL: "https"},
		"new, its pods are there":            {told: "https" + host, deployment: secured, wantMode: v1alpha1.IngestTLSRequired, wantURL: "https"},
		"from before":                        {told: "http" + host, deployment: plain, wantMode: v1alpha1.IngestTLSOptional, wantURL: "http", wantKept: true},
		"from before, no pods":               {told: "http" + host, wantMode: v1alpha1.IngestTLSOptional, wantURL: "http", wantKept: true},
		"from before, its status was lost":   {deployment: plain, wantMode: v1alpha1.IngestTLSOptional, wantURL: "https", wantKept: true},
		"optional once":                      {told: "https" + host, deployment: plain, wantMode: v1alpha1.IngestTLSOptional, wantURL: "https", wantKept: true},
		"from before, and required":          {told: "http" + host, deployment: plain, mode: v1alpha1.IngestTLSRequired, wantMode: v1alpha1.IngestTLSRequired, wantURL: "https"},
		"from before, and optional":          {told: "http" + host, deployment: plain, mode: v1alpha1.IngestTLSOptional, wantMode: v1alpha1.IngestTLSOptional, wantURL: "https"},
		"disabled":                           {told: "https" + host, deployment: secured, mode: v1alpha1.IngestTLSDisabled, wantMode: v1alpha1.IngestTLSDisabled, wantURL: "http"},
		"disabled before, says nothing more": {told: "http" + host, deployment: plain, wantMode: v1alpha1.IngestTLSOptional, wantURL: "http", wantKept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := observed()
			o.deployment, o.dispatcher.Status.PublishURL, o.dispatcher.Spec.Ingest.TLS.Mode = test.deployment, test.told, test.mode
			settleIngest(&o)
			if got := o.dispatcher.Spec.Ingest.TLS.Mode; got != test.wantMode || o.publishURL != test.wantURL+host || o.kept != test.wantKept {
				t.Errorf("mode %s at %s, kept %t", got, o.publishURL, o.kept)
			}
			if c := accepted(o); strings.Contains(c.Message, "spec.ingest.tls.mode") != test.wantKept {
				t.Errorf("Accepted says %q", c.Message)
			}
		})
	}
}

// TestIngestModes: ports, arguments and mounts agree with each other.
func TestIngestModes(t *testing.T) {
	t.Parallel()
	secured := []string{"--listen=:8444", "--tls-cert-file=/etc/eventflow/ingest/tls.crt", "--tls-key-file=/etc/eventflow/ingest/tls.key"}
	ca := &v1alpha1.ClientCA{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "producers", Key: "bundle.pem"}}
	for name, test := range map[string]struct {
		ingest     v1alpha1.Ingest
		wantArgs   []string
		wantPorts  []string
		wantMounts []string
	}{
		"required": {v1alpha1.Ingest{}, secured, []string{"https"}, []string{ingestPath}},
		"optional": {
			v1alpha1.Ingest{TLS: v1alpha1.IngestTLS{Mode: v1alpha1.IngestTLSOptional}}, append(slices.Clone(secured), "--plain-listen=:8080"),
			[]string{"https", "http"}, []string{ingestPath},
		},
		"disabled": {v1alpha1.Ingest{TLS: v1alpha1.IngestTLS{Mode: v1alpha1.IngestTLSDisabled}}, []string{"--listen=:8080"}, []string{"http"}, nil},
		"client certificates and audiences": {
			v1alpha1.Ingest{ClientCA: ca, Audiences: []string{"eventflow", "b"}},
			append(slices.Clone(secured), "--ingest-client-ca-file=/etc/eventflow/client-ca/ca.crt", "--ingest-audience=eventflow", "--ingest-audience=b"),
			[]string{"https"}, []string{ingestPath, clientCAPath},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := observed().dispatcher
			d.Spec.Ingest = test.ingest
			if got := ingestArguments(d); !slices.Equal(got, test.wantArgs) {
				t.Errorf("arguments %v", got)
			}
			var ports, inService, mounts []string
			for _, p := range ingestPorts(d) {
				ports = append(ports, *p.Name)
			}
			for _, p := range ingestServicePorts(d) {
				inService = append(inService, p.TargetPort.StrVal)
			}
			for _, m := range ingestMounts(d) {
				mounts = append(mounts, *m.MountPath)
			}
			if !slices.Equal(ports, test.wantPorts) || !slices.Equal(inService, test.wantPorts) || !slices.Equal(mounts, test.wantMounts) {
				t.Errorf("ports %v, those of the Service %v, mounts %v", ports, inService, mounts)
			}
			for _, v := range ingestVolumes(d) {
				if v.Secret != nil && len(v.Secret.Items) != 2 {
					t.Errorf("the pod sees more of the Secret than what it serves: %v", v.Secret.Items)
				}
				if v.ConfigMap != nil && (!*v.ConfigMap.Optional || *v.ConfigMap.Items[0].Key != "bundle.pem" || *v.ConfigMap.Items[0].Path != clientCAFile) {
					t.Errorf("the authorities of clients: %+v", v.ConfigMap)
				}
			}
		})
	}
}
