package dispatcher

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// effect is how a field of the spec takes effect.
type effect int

const (
	bySettings effect = iota // at once: it is in the settings
	byTable                  // at once: it is in the routing table, for single tenants
	byRestart                // the pods are replaced
	apart                    // the pods stay: it concerns other objects
)

// classified are all fields of the spec, as they are written, with a change of each. A field that stands for those below
// it ends with a dot.
var classified = map[string]struct {
	effect effect
	change func(*v1alpha1.WebhookDispatcherSpec)
}{
	"replicas":                        {apart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Replicas = ptr.To(int32(0)) }},
	"store.embedded.size":             {apart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Store.Embedded.Size = resource.MustParse("20Gi") }},
	"store.embedded.storageClassName": {apart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Store.Embedded.StorageClassName = "fast" }},
	"store.embedded.accessMode":       {apart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Store.Embedded.AccessMode = "ReadWriteOnce" }},
	"store.postgres.":                 {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Store = inDatabase("a", "b") }},
	"encryption.mode":                 {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Encryption.Mode = v1alpha1.EncryptionEnabled }},
	"encryption.keySecretRef.name": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Encryption = v1alpha1.Encryption{Mode: v1alpha1.EncryptionEnabled, KeySecretRef: &v1alpha1.SecretReference{Name: "kek"}}
	}},
	"subscriptions.namespaceSelector.": {byTable, func(s *v1alpha1.WebhookDispatcherSpec) { s.Subscriptions.NamespaceSelector = *gold() }},
	"ingest.authentication":            {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.Authentication = v1alpha1.IngestNone }},
	"ingest.maxEventBytes":             {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.MaxEventBytes = 2048 }},
	"audit.level":                      {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Audit.Level = v1alpha1.AuditAll }},
	"ingest.audiences":                 {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.Audiences = []string{"eventflow"} }},
	"ingest.tls.mode":                  {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.TLS.Mode = v1alpha1.IngestTLSDisabled }},
	"ingest.tls.certificateSecretRef.name": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Ingest.TLS.CertificateSecretRef = &v1alpha1.SecretReference{Name: "tls"}
	}},
	"ingest.clientCA.configMapKeyRef.name": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Ingest.ClientCA = &v1alpha1.ClientCA{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "producers", Key: "ca.crt"}}
	}},
	"ingest.clientCA.configMapKeyRef.key": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Ingest.ClientCA = &v1alpha1.ClientCA{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "producers", Key: "other.crt"}}
	}},
	"ingest.clientCA.secretKeyRef.name": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Ingest.ClientCA = &v1alpha1.ClientCA{SecretKeyRef: &v1alpha1.SecretKeyReference{Name: "producers", Key: "ca.crt"}}
	}},
	"ingest.clientCA.secretKeyRef.key": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Ingest.ClientCA = &v1alpha1.ClientCA{SecretKeyRef: &v1alpha1.SecretKeyReference{Name: "producers", Key: "other.crt"}}
	}},
	"ingest.hosts":       {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.Hosts = []string{"events.example.com"} }},
	"ingest.outageGrace": {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Ingest.OutageGrace = &metav1.Duration{} }},
	"egress.allowHTTP":   {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.AllowHTTP = ptr.To(true) }},
	"egress.rules.": {byTable, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Egress.Rules = []v1alpha1.EgressRule{{NamespaceSelector: gold()}}
	}},
	"egress.approval":  {byTable, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.Approval = v1alpha1.ApprovalRequired }},
	"egress.proxy.url": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.Proxy.URL = "http://proxy:3128" }},
	"egress.proxy.connect": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Egress.Proxy = v1alpha1.EgressProxy{URL: "http://proxy:3128", Connect: v1alpha1.ConnectHost}
	}},
	"egress.proxy.secretRef.name": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Egress.Proxy = v1alpha1.EgressProxy{URL: "http://proxy:3128", SecretRef: v1alpha1.SecretReference{Name: "proxy"}}
	}},
	"egress.minTLSVersion":       {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.MinTLSVersion = v1alpha1.TLS13 }},
	"egress.allowedPorts":        {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.AllowedPorts = []int32{25} }},
	"egress.allowedCIDRs":        {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.AllowedCIDRs = []string{"10.0.0.0/8"} }},
	"egress.deniedCIDRs":         {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Egress.DeniedCIDRs = []string{"10.0.0.0/8"} }},
	"retention.delivered":        {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Retention.Delivered.Duration = 2 * time.Hour }},
	"retention.failed":           {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Retention.Failed.Duration = 2 * time.Hour }},
	"quotas.subscriptions":       {byTable, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.Subscriptions = 5 }},
	"quotas.configurationBytes":  {byTable, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.ConfigurationBytes = resource.MustParse("1Mi") }},
	"quotas.eventsPerSecond":     {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.EventsPerSecond = 5 }},
	"quotas.eventsBurst":         {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.EventsBurst = 5 }},
	"quotas.pendingBytes":        {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.PendingBytes = resource.MustParse("1Mi") }},
	"quotas.pendingDeliveries":   {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.PendingDeliveries = 5 }},
	"quotas.scheduledDeliveries": {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.ScheduledDeliveries = 5 }},
	"quotas.attemptsInFlight":    {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.Quotas.AttemptsInFlight = 5 }},
	"quotas.overrides.": {byTable, func(s *v1alpha1.WebhookDispatcherSpec) {
		s.Quotas.Overrides = []v1alpha1.QuotaOverride{{NamespaceSelector: gold()}}
	}},
	"limits.attemptsInFlight": {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Limits.AttemptsInFlight = 5 }},
	"limits.connections":      {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Limits.Connections = 50 }},
	"limits.memory":           {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Limits.Memory = resource.MustParse("1Gi") }},
	"deliveriesAPI.enabled":   {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.DeliveriesAPI.Enabled = ptr.To(true) }},
	"eventResources":          {bySettings, func(s *v1alpha1.WebhookDispatcherSpec) { s.EventResources = []string{"lab-order"} }},
	"service.":                {apart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Service.Annotations = map[string]string{"a": "b"} }},
	"template.":               {byRestart, func(s *v1alpha1.WebhookDispatcherSpec) { s.Template.Annotations = map[string]string{"a": "b"} }},
}

func gold() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
}

func inDatabase(secret, key string) v1alpha1.Store {
	return v1alpha1.Store{Postgres: &v1alpha1.PostgresStore{ConnectionSecretRef: v1alpha1.SecretKeyReference{Name: secret, Key: key}}}
}

// fieldsOf lists the fields of a type of the API, as they are written. Those below a prefix that is classified stand for
// themselves.
func fieldsOf(t reflect.Type, prefix string) (fields []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if _, whole := classified[prefix]; whole && prefix != "" {
		return []string{prefix}
	}
	own := strings.HasPrefix(t.PkgPath(), "github.com/clinikapi/eventflow/")
	if t.Kind() != reflect.Struct || !own {
		return []string{strings.TrimSuffix(prefix, ".")}
	}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		below := prefix + name + "."
		if options == "inline" {
			below = prefix
		}
		fields = append(fields, fieldsOf(t.Field(i).Type, below)...)
	}
	return fields
}

// TestEveryFieldIsClassified: a new field of the spec says here how it takes effect.
func TestEveryFieldIsClassified(t *testing.T) {
	t.Parallel()
	fields := fieldsOf(reflect.TypeFor[v1alpha1.WebhookDispatcherSpec](), "")
	for _, field := range fields {
		if _, ok := classified[field]; !ok {
			t.Errorf("spec.%s: nothing says whether it takes effect without a restart", field)
		}
	}
	for field := range classified {
		if !slices.Contains(fields, field) {
			t.Errorf("spec.%s: there is no such field", field)
		}
	}
}

// TestFieldsTakeEffectAsClassified: a change of a field leaves the pods as they are, or replaces them, as its class says.
func TestFieldsTakeEffectAsClassified(t *testing.T) {
	t.Parallel()
	for field, class := range classified {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			before := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: "flow", Name: "main", Generation: 1}}
			before.Spec.Store.Embedded = &v1alpha1.EmbeddedStore{}
			after := before.DeepCopy()
			class.change(&after.Spec)
			if reflect.DeepEqual(before, after) {
				t.Fatal("nothing is changed")
			}
			pods := bytes.Equal(template(t, before), template(t, after))
			if want := class.effect != byRestart; pods != want {
				t.Errorf("the pods stay as they are: %t, want %t", pods, want)
			}
			same := bytes.Equal(encoded(t, before), encoded(t, after))
			if want := class.effect != bySettings; same != want {
				t.Errorf("the settings stay as they are: %t, want %t", same, want)
			}
		})
	}
}

// template is the Deployment's pod template.
func template(t *testing.T, d *v1alpha1.WebhookDispatcher) []byte {
	t.Helper()
	made, err := deployment(d, "", Image{Name: "image"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(made.Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func encoded(t *testing.T, d *v1alpha1.WebhookDispatcher) []byte {
	t.Helper()
	text, err := settingsOf(d).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestSettingsOfAnInvalidSpecAreNotWritten: the pods go on by those before, and Accepted says why.
func TestSettingsOfAnInvalidSpecAreNotWritten(t *testing.T) {
	t.Parallel()
	for cidr, want := range map[string]bool{"10.0.0.0/8": true, "10.0.0.0": false} {
		o := observation{dispatcher: &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: "flow", Name: "main", Generation: 1}}}
		o.dispatcher.Spec.Egress.DeniedCIDRs = []string{cidr}
		made, err := objects(o, Image{Name: "image"})
		if err != nil {
			t.Fatal(err)
		}
		written := false
		for _, object := range made {
			written = written || object.kind == "Secret"
		}
		c := accepted(o)
		if written != want || (c.Status == metav1.ConditionTrue) != want {
			t.Errorf("%s: written %t, accepted %+v", cidr, written, c)
		}
	}
}
