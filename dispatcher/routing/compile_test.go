package routing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"

	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// canary stands in every value that must never be shown.
const canary = "c4n4ry"

func catalog(t testing.TB, extra ...string) *event.Catalog {
	t.Helper()
	c, err := event.NewCatalog(extra...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// secretsOf serves Secrets from memory.
func secretsOf(all map[string]map[string][]byte) Sources {
	read := func(name string) (map[string][]byte, bool, error) {
		data, found := all[name]
		return data, found, nil
	}
	return Sources{Secrets: read, ConfigMaps: read}
}

func clinicSecrets() map[string]map[string][]byte {
	return map[string]map[string][]byte{
		"billing-key": {
			"current":  []byte("whsec_" + "YzRuNHJ5LWN1cnJlbnQtb2YtMjQtYnl0ZXMtb3ItbW9yZQ=="),
			"previous": []byte(canary + "-previous-of-24-bytes-or-more"),
			"empty":    {},
			"broken":   []byte("whsec_" + canary + "!"),
		},
		"billing": {
			"url":      []byte("https://hooks.example.com/" + canary),
			"http":     []byte("http://hooks.example.com/" + canary),
			"trailing": []byte("https://hooks.example.com/" + canary + "\n"),
			"user":     []byte("https://user:" + canary + "@hooks.example.com/"),
			"token":    []byte("Bearer " + canary),
			"newline":  []byte(canary + "\r\nX-Evil: 1"),
			"nul":      []byte(canary + "\x00"),
			"latin1":   []byte(canary + "\xe9"),
			"long":     []byte(strings.Repeat(canary, 4000)),
			"none":     {},
			"8KiB":     []byte(strings.Repeat("x", 8<<10)),

			"url-nbsp":      []byte("https://hooks.example.com/" + canary + "\u00a0"),
			"token-newline": []byte("Bearer " + canary + "\n"),
			"token-nbsp":    []byte("Bearer\u00a0" + canary),
			"token-zwsp":    []byte("Bearer " + canary + "\u200b"),
			"token-bom":     []byte("\ufeffBearer " + canary),
		},
	}
}

// pulled makes a change to the spec of a subscription that is pulled.
func pulled(change func(*v1alpha1.WebhookSubscriptionSpec)) func(*v1alpha1.WebhookSubscriptionSpec) {
	return func(s *v1alpha1.WebhookSubscriptionSpec) {
		s.URL, s.URLFrom, s.Delivery.Mode = "", nil, v1alpha1.DeliveryPull
		change(s)
	}
}

// TestCompilePull: a subscription that is pulled needs no URL, leads nowhere, and shows no origin.
func TestCompilePull(t *testing.T) {
	t.Parallel()
	sub := minimal()
	pulled(func(*v1alpha1.WebhookSubscriptionSpec) {})(&sub.Spec)
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	route, err := entry.Route()
	if err != nil || !route.Endpoint.Pull || route.Endpoint.Target.URL != egress.Nowhere || entry.Origin() != "" {
		t.Errorf("route %+v, origin %q, %v", route, entry.Origin(), err)
	}
}

func reference(name, key string) v1alpha1.SecretKeyReference {
	return v1alpha1.SecretKeyReference{Name: name, Key: key}
}

func from(name, key string) *v1alpha1.ValueSource {
	return &v1alpha1.ValueSource{SecretKeyRef: reference(name, key)}
}

func seconds(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

// minimal is the least that a subscription consists of.
func minimal() *v1alpha1.WebhookSubscription {
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Name: "billing-sync", Namespace: "clinic-a", UID: types.UID("5f0c"), Generation: 3},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL:     "https://billing.example.com/hooks",
			Events:  []string{"encounter.updated", "appointment.*"},
			Signing: v1alpha1.Signing{SecretRef: reference("billing-key", "current")},
		},
	}
}

func TestCompileDefaults(t *testing.T) {
	t.Parallel()
	entry, rejection, err := Compile(minimal(), secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatalf("got %v, %v", rejection, err)
	}
	want := &Entry{
		Identity: "5f0c", Namespace: "clinic-a", Name: "billing-sync", Generation: 3,
		Patterns:    []event.Pattern{"encounter.updated", "appointment.*"},
		URL:         "https://billing.example.com/hooks",
		Keys:        [][]byte{[]byte("whsec_YzRuNHJ5LWN1cnJlbnQtb2YtMjQtYnl0ZXMtb3ItbW9yZQ==")},
		Timeout:     30 * time.Second,
		Retry:       Retry{Initial: 30 * time.Second, Max: 2 * time.Hour, MaxAge: 72 * time.Hour, Factor: 4},
		MaxInFlight: 32,
	}
	want.Revision = entry.Revision
	if diff := cmp.Diff(want, entry); diff != "" {
		t.Error(diff)
	}
	if got := entry.Origin(); got != "https://billing.example.com" {
		t.Errorf("origin %q", got)
	}
}

func TestCompileEveryField(t *testing.T) {
	t.Parallel()
	sub := minimal()
	attempts, suspend := int32(7), true
	previous := reference("billing-key", "previous")
	sub.UID, sub.Generation = "", 0
	sub.Spec = v1alpha1.WebhookSubscriptionSpec{
		URLFrom: from("billing", "http"),
		Events:  []string{"patient.created", "claim.*", "patient.*", "claim.deleted"},
		Signing: v1alpha1.Signing{SecretRef: reference("billing-key", "current"), PreviousSecretRef: &previous},
		Headers: []v1alpha1.Header{{Name: "x-team", Value: "billing"}, {Name: "Authorization", ValueFrom: from("billing", "token")}},
		Timeout: seconds(5 * time.Second),
		Retry: v1alpha1.Retry{
			InitialDelay: seconds(time.Second), MaxDelay: seconds(time.Minute), MaxAge: seconds(time.Hour), Factor: 2, MaxAttempts: &attempts,
		},
		Delivery: v1alpha1.Delivery{MaxInFlight: 1},
		Payload:  v1alpha1.Payload{Mode: v1alpha1.PayloadThin},
		Suspend:  &suspend,
	}
	before := sub.DeepCopy()
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t, "claim"), AllowHTTP: true})
	if err != nil || rejection != nil {
		t.Fatalf("got %v, %v", rejection, err)
	}
	if diff := cmp.Diff(before, sub); diff != "" {
		t.Error("Compile modified its argument", diff)
	}
	want := &Entry{
		Identity: "clinic-a/billing-sync", Namespace: "clinic-a", Name: "billing-sync", Generation: Generation(sub),
		Patterns:    []event.Pattern{"claim.*", "patient.*"},
		URL:         "http://hooks.example.com/" + canary,
		Header:      http.Header{"X-Team": {"billing"}, "Authorization": {"Bearer " + canary}},
		Keys:        [][]byte{[]byte("whsec_YzRuNHJ5LWN1cnJlbnQtb2YtMjQtYnl0ZXMtb3ItbW9yZQ=="), []byte(canary + "-previous-of-24-bytes-or-more")},
		Timeout:     5 * time.Second,
		Thin:        true,
		Retry:       Retry{Initial: time.Second, Max: time.Minute, MaxAge: time.Hour, Factor: 2, MaxAttempts: 7},
		MaxInFlight: 1,
		Suspended:   true,
	}
	want.Revision = entry.Revision
	if diff := cmp.Diff(want, entry); diff != "" {
		t.Error(diff)
	}
	if entry.Generation <= 0 {
		t.Errorf("generation %d is not positive", entry.Generation)
	}
}

func TestGenerationFollowsTheSpec(t *testing.T) {
	t.Parallel()
	sub := minimal()
	sub.Generation = 0
	first := Generation(sub)
	sub.Labels = map[string]string{"team": "billing"}
	if Generation(sub) != first {
		t.Error("a label changed the generation")
	}
	sub.Spec.URL += "/v2"
	if Generation(sub) == first {
		t.Error("another URL has the same generation")
	}
}

func TestPreviousKeyThatIsTheCurrentOneSignsOnce(t *testing.T) {
	t.Parallel()
	sub := minimal()
	same := reference("billing-key", "current")
	sub.Spec.Signing.PreviousSecretRef = &same
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil || len(entry.Keys) != 1 {
		t.Fatalf("got %v, %v, %v", entry, rejection, err)
	}
}

// rejected is one case of a subscription that is not accepted.
type rejected struct {
	edit        func(*v1alpha1.WebhookSubscriptionSpec)
	wantReason  string
	wantMessage string // a part of it
}

func (tc rejected) run(t *testing.T) {
	t.Parallel()
	sub := minimal()
	tc.edit(&sub.Spec)
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection == nil || entry != nil {
		t.Fatalf("got %v, %v, %v; want a rejection", entry, rejection, err)
	}
	if rejection.Reason != tc.wantReason || !strings.Contains(rejection.Message, tc.wantMessage) {
		t.Errorf("got %s: %s; want %s: …%s…", rejection.Reason, rejection.Message, tc.wantReason, tc.wantMessage)
	}
	if strings.Contains(rejection.Message, canary) {
		t.Errorf("the message shows what it must not: %s", rejection.Message)
	}
}

type spec = v1alpha1.WebhookSubscriptionSpec

func TestCompileRejectsURLs(t *testing.T) {
	t.Parallel()
	url := func(u string) func(*spec) { return func(s *spec) { s.URL = u } }
	urlFrom := func(name, key string) func(*spec) {
		return func(s *spec) { s.URL, s.URLFrom = "", from(name, key) }
	}
	for name, tc := range map[string]rejected{
		"none":                 {url(""), "InvalidURL", "exactly one"},
		"both":                 {func(s *spec) { s.URLFrom = from("billing", "url") }, "InvalidURL", "exactly one"},
		"http":                 {url("http://example.com/" + canary), "HTTPNotAllowed", "spec.url: use https"},
		"http, upper":          {url("HTTP://example.com/"), "HTTPNotAllowed", "use https"},
		"relative":             {url("/hooks/" + canary), "InvalidURL", "absolute"},
		"other scheme":         {url("ftp://example.com/" + canary), "InvalidURL", "absolute"},
		"file":                 {url("file:///etc/passwd"), "InvalidURL", "absolute"},
		"opaque":               {url("https:example.com/" + canary), "InvalidURL", "absolute"},
		"no host":              {url("https:///" + canary), "InvalidURL", "absolute"},
		"port alone":           {url("https://:8443/" + canary), "InvalidURL", "absolute"},
		"port 0":               {url("https://example.com:0/"), "InvalidURL", "port"},
		"port 65536":           {url("https://example.com:65536/"), "InvalidURL", "port"},
		"port text":            {url("https://example.com:https/"), "InvalidURL", "absolute"},
		"user":                 {url("https://" + canary + "@example.com/"), "InvalidURL", "user name"},
		"empty user":           {url("https://@example.com/"), "InvalidURL", "user name"},
		"fragment":             {url("https://example.com/#" + canary), "InvalidURL", "fragment"},
		"a zone":               {url("https://[2606:4700::1%25x%20y]/"), "InvalidURL", "no zone"},
		"newline":              {url("https://example.com/\n" + canary), "InvalidURL", "a line feed (U+000A) inside"},
		"NUL":                  {url("https://example.com/\x00" + canary), "InvalidURL", "a NUL character (U+0000) inside"},
		"space":                {url("https://example.com/ " + canary), "InvalidURL", "spaces"},
		"not UTF-8":            {url("https://example.com/\xff"), "InvalidURL", "absolute"},
		"too short":            {url("http://"), "InvalidURL", "8 to 2048"},
		"too long":             {url("https://example.com/" + strings.Repeat("a", 2048)), "InvalidURL", "8 to 2048"},
		"bad escape":           {url("https://example.com/%zz" + canary), "InvalidURL", "absolute"},
		"bad host":             {url("https://exa mple.com/"), "InvalidURL", "spaces"},
		"Secret":               {urlFrom("absent", "url"), "SecretNotFound", `Secret "absent" not found in namespace "clinic-a": create it, or correct spec.urlFrom.secretKeyRef`},
		"Secret's key":         {urlFrom("billing", "absent"), "SecretKeyMissing", `Secret "billing" in namespace "clinic-a" has no key "absent"`},
		"from: http":           {urlFrom("billing", "http"), "HTTPNotAllowed", "spec.urlFrom"},
		"from: newline":        {urlFrom("billing", "trailing"), "InvalidURL", "a line feed (U+000A) at its end"},
		"from: no-break space": {urlFrom("billing", "url-nbsp"), "InvalidURL", "a no-break space (U+00A0) at its end"},
		"zero width space":     {url("https://example.com/\u200b" + canary), "InvalidURL", "a zero width space (U+200B) inside"},
		"byte order mark":      {url("\ufeffhttps://example.com/" + canary), "InvalidURL", "a byte order mark (U+FEFF) at its beginning"},
		"from: empty":          {urlFrom("billing", "none"), "InvalidURL", "absolute"},
		"from: no name":        {urlFrom("", "url"), "InvalidSpec", "spec.urlFrom.secretKeyRef.name"},
	} {
		t.Run(name, tc.run)
	}
}

func TestCompileRejectsHeaders(t *testing.T) {
	t.Parallel()
	headers := func(headers ...v1alpha1.Header) func(*spec) { return func(s *spec) { s.Headers = headers } }
	value := func(v string) func(*spec) { return headers(v1alpha1.Header{Name: "X-Team", Value: v}) }
	secret := func(key string) func(*spec) {
		return headers(v1alpha1.Header{Name: "Authorization", ValueFrom: from("billing", key)})
	}
	long := func(n, size int) func(*spec) {
		var all []v1alpha1.Header
		for i := range n {
			all = append(all, v1alpha1.Header{Name: fmt.Sprintf("X-%d", i), Value: strings.Repeat("a", size)})
		}
		return headers(all...)
	}
	cases := map[string]rejected{
		"newline":                 {value(canary + "\nX-Evil: 1"), "InvalidHeader", "a line feed (U+000A)"},
		"NUL":                     {value(canary + "\x00"), "InvalidHeader", "a NUL character (U+0000)"},
		"DEL":                     {value(canary + "\x7f"), "InvalidHeader", "a delete character (U+007F)"},
		"too long":                {value(strings.Repeat("a", 4097)), "InvalidHeader", "at most 4096"},
		"no value":                {value(""), "InvalidHeader", "exactly one"},
		"both":                    {headers(v1alpha1.Header{Name: "X-Team", Value: "a", ValueFrom: from("billing", "token")}), "InvalidHeader", "exactly one"},
		"twice":                   {headers(v1alpha1.Header{Name: "X-Team", Value: "a"}, v1alpha1.Header{Name: "x-team", Value: "b"}), "InvalidHeader", "twice"},
		"name empty":              {headers(v1alpha1.Header{Value: "a"}), "InvalidHeader", "header name"},
		"name space":              {headers(v1alpha1.Header{Name: "X Team", Value: "a"}), "InvalidHeader", "header name"},
		"name newline":            {headers(v1alpha1.Header{Name: "X-Team\n", Value: "a"}), "InvalidHeader", "header name"},
		"name colon":              {headers(v1alpha1.Header{Name: "X-Team:", Value: "a"}), "InvalidHeader", "header name"},
		"name too long":           {headers(v1alpha1.Header{Name: strings.Repeat("a", 129), Value: "a"}), "InvalidHeader", "at most 128"},
		"too many":                {headers(make([]v1alpha1.Header, 33)...), "InvalidSpec", "at most 32"},
		"Secret":                  {headers(v1alpha1.Header{Name: "A", ValueFrom: from("absent", "a")}), "SecretNotFound", "correct spec.headers[0].valueFrom.secretKeyRef"},
		"Secret's key":            {secret("absent"), "SecretKeyMissing", `has no key "absent"`},
		"from: newline":           {secret("newline"), "InvalidHeader", "a carriage return (U+000D) inside: write it without into the Secret"},
		"from: line break behind": {secret("token-newline"), "InvalidHeader", "a line feed (U+000A) at its end"},
		"from: no-break space":    {secret("token-nbsp"), "InvalidHeader", "a no-break space (U+00A0) inside"},
		"from: zero width space":  {secret("token-zwsp"), "InvalidHeader", "a zero width space (U+200B) at its end"},
		"from: byte order mark":   {secret("token-bom"), "InvalidHeader", "a byte order mark (U+FEFF) at its beginning"},
		"C1":                      {value(canary + "\u0085"), "InvalidHeader", "a next line character (U+0085)"},
		"from: NUL":               {secret("nul"), "InvalidHeader", "a NUL character (U+0000) at its end"},
		"from: latin1":            {secret("latin1"), "InvalidHeader", "UTF-8"},
		"from: empty":             {secret("none"), "InvalidHeader", "empty"},
		"from: long":              {secret("long"), "InvalidHeader", "too long"},
		"all too long":            {long(4, 4096), "InvalidHeader", "more than 16384 bytes"},
		"in bytes":                {headers(v1alpha1.Header{Name: "X-Team", Value: strings.Repeat("\U0001f9ea", 4096)}), "InvalidHeader", "more than 16384 bytes"},
		"from: all":               {headers(v1alpha1.Header{Name: "A", ValueFrom: from("billing", "8KiB")}, v1alpha1.Header{Name: "B", ValueFrom: from("billing", "8KiB")}), "InvalidHeader", "those from Secrets included"},
		"from: no key":            {secret(""), "InvalidSpec", "spec.headers[0].valueFrom.secretKeyRef.key"},
	}
	for _, name := range []string{
		"Host", "connection", "Content-Type", "content-length", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Expect", "Keep-Alive",
		"Proxy-Authorization", "Accept-Encoding", "X-Clinik-Signature", "x-clinikapi-signature", "Webhook-Id",
		"HTTP2-Settings", "ce-id", "CE-Type", "Ce_Source", "X_Clinik_Event", "content_type",
	} {
		cases["reserved "+name] = rejected{headers(v1alpha1.Header{Name: name, Value: "a"}), "InvalidHeader", name + " is set by Event Flow"}
	}
	for name, tc := range cases {
		t.Run(name, tc.run)
	}
}

// TestCompileTakesHeaders: what is not reserved may be set, User-Agent for the allow-lists of firewalls among it.
func TestCompileTakesHeaders(t *testing.T) {
	t.Parallel()
	sub := minimal()
	for _, name := range []string{"User-Agent", "Hostname", "Webhook", "Certificate", "Idempotency-Key", "Authorization"} {
		sub.Spec.Headers = append(sub.Spec.Headers, v1alpha1.Header{Name: name, Value: "a"})
	}
	// In all 16 KiB: the names above and below, a value each, and the rest.
	rest := maxHeaderBytes - len("User-AgentHostnameWebhookCertificateIdempotency-KeyAuthorizationABCD") - len(sub.Spec.Headers)
	for i, name := range []string{"A", "B", "C", "D"} {
		size := 4096
		if i == 3 {
			size = rest - 3*4096
		}
		sub.Spec.Headers = append(sub.Spec.Headers, v1alpha1.Header{Name: name, Value: strings.Repeat("a", size)})
	}
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil || len(entry.Header) != 10 {
		t.Errorf("got %v, %v, %v", entry, rejection, err)
	}
}

// TestValuesAreShared: a value of one Secret that many subscriptions send is held once, compiled or read back.
func TestValuesAreShared(t *testing.T) {
	t.Parallel()
	compile := func(name string) *Entry {
		sub, secrets := minimal(), clinicSecrets()
		sub.Name, sub.UID = name, types.UID(name)
		sub.Spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: from("billing", "8KiB")}}
		entry, rejection, err := Compile(sub, secretsOf(secrets), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
		}
		return entry
	}
	same := func(what string, entries []*Entry) {
		a, b := entries[0].Header.Get("Authorization"), entries[1].Header.Get("Authorization")
		if len(a) != 8<<10 || unsafe.StringData(a) != unsafe.StringData(b) {
			t.Errorf("%s: two copies", what)
		}
	}
	entries := []*Entry{compile("a"), compile("b")}
	same("compiled", entries)
	shard, err := EncodeShard(entries)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := DecodeShard(shard)
	if err != nil {
		t.Fatal(err)
	}
	same("read back", decoded)
}

func TestCompileRejectsEventsAndKeys(t *testing.T) {
	t.Parallel()
	events := func(events ...string) func(*spec) { return func(s *spec) { s.Events = events } }
	key := func(name, key string) func(*spec) {
		return func(s *spec) { s.Signing.SecretRef = reference(name, key) }
	}
	previous := func(name, key string) func(*spec) {
		return func(s *spec) { ref := reference(name, key); s.Signing.PreviousSecretRef = &ref }
	}
	for name, tc := range map[string]rejected{
		"no event":            {events(), "InvalidSpec", "spec.events"},
		"too many events":     {events(make([]string, 101)...), "InvalidSpec", "1 to 100"},
		"event twice":         {events("patient.*", "patient.*"), "InvalidSpec", `"patient.*" is named twice`},
		"empty event":         {events(""), "InvalidPattern", "spec.events[0]"},
		"action":              {events("patient.created", "patient.read"), "InvalidPattern", `spec.events[1]: "patient.read" is not a pattern`},
		"any resource":        {events("*.created"), "InvalidPattern", "not a pattern"},
		"long event":          {events(strings.Repeat("a", 10000)), "InvalidPattern", `aaa"… is not a pattern`},
		"resource":            {events("invoice.*"), "UnknownResource", `unknown resource "invoice"`},
		"no key":              {key("", ""), "InvalidSpec", "spec.signing.secretRef.name"},
		"long Secret's name":  {key(strings.Repeat("a", 254), "current"), "InvalidSpec", "at most 253"},
		"slash in key":        {key("billing-key", "a/b"), "InvalidSpec", "spec.signing.secretRef.key"},
		"long key":            {key("billing-key", strings.Repeat("a", 254)), "InvalidSpec", "spec.signing.secretRef.key"},
		"Secret":              {key("absent", "current"), "SecretNotFound", `Secret "absent" not found in namespace "clinic-a": create it, or correct spec.signing.secretRef`},
		"Secret's key":        {key("billing-key", "absent"), "SecretKeyMissing", `has no key "absent": add it, or correct spec.signing.secretRef`},
		"empty key":           {key("billing-key", "empty"), "SecretKeyInvalid", "too short"},
		"broken key":          {key("billing-key", "broken"), "SecretKeyInvalid", "not base64"},
		"previous Secret":     {previous("absent", "current"), "SecretNotFound", "spec.signing.previousSecretRef"},
		"previous key":        {previous("billing-key", "broken"), "SecretKeyInvalid", "spec.signing.previousSecretRef"},
		"previous, no key":    {previous("billing-key", ""), "InvalidSpec", "spec.signing.previousSecretRef.key"},
		"upper Secret's name": {key("Billing_Key", "current"), "InvalidSpec", "spec.signing.secretRef.name"},
		"dispatcher's name":   {func(s *spec) { s.DispatcherRef.Name = strings.Repeat("a", 41) }, "InvalidSpec", "spec.dispatcherRef.name"},
		"dispatcher, upper":   {func(s *spec) { s.DispatcherRef.Name = "Europe" }, "InvalidSpec", "spec.dispatcherRef.name"},
		"its namespace":       {func(s *spec) { s.DispatcherRef.Namespace = "a.b" }, "InvalidSpec", "spec.dispatcherRef.namespace"},
		"spec before Secrets": {func(s *spec) { s.Signing.SecretRef.Name = "absent"; s.Retry.Factor = 11 }, "InvalidSpec", "spec.retry.factor"},
	} {
		t.Run(name, tc.run)
	}
}

func TestCompileRejectsLimits(t *testing.T) {
	t.Parallel()
	count := func(n int32) *int32 { return &n }
	for name, tc := range map[string]rejected{
		"unknown mode":       {func(s *spec) { s.Delivery.Mode = "Poll" }, "InvalidSpec", "spec.delivery.mode: must be Push or Pull"},
		"pull with a URL":    {func(s *spec) { s.Delivery.Mode = "Pull" }, "InvalidSpec", "spec.url, spec.urlFrom and spec.serviceRef: not with spec.delivery.mode Pull"},
		"pull with auth":     {pulled(func(s *spec) { s.Auth = &v1alpha1.Auth{} }), "InvalidSpec", "spec.auth"},
		"pull with TLS":      {pulled(func(s *spec) { s.TLS.ServerName = "a.example" }), "InvalidSpec", "spec.tls"},
		"pull, handshake":    {pulled(func(s *spec) { s.Handshake = &v1alpha1.Handshake{} }), "InvalidSpec", "spec.handshake"},
		"pull, outcome":      {pulled(func(s *spec) { s.Outcome = &v1alpha1.Outcome{} }), "InvalidSpec", "spec.outcome"},
		"pull with a lookup": {pulled(func(s *spec) { s.Lookup = &v1alpha1.Lookup{} }), "InvalidSpec", "spec.lookup"},
		"pull with PUT":      {pulled(func(s *spec) { s.Transform = &v1alpha1.Transform{Method: "PUT"} }), "InvalidSpec", "spec.transform.method"},
		"pull with a suffix": {pulled(func(s *spec) { s.Transform = &v1alpha1.Transform{URLSuffix: "'/x'"} }), "InvalidSpec", "spec.transform.urlSuffix"},
		"pull by resource":   {pulled(func(s *spec) { s.Delivery.Ordering = "ByResource" }), "InvalidSpec", "spec.delivery.ordering"},
		"pull with a rate":   {pulled(func(s *spec) { s.Delivery.RateLimit = &v1alpha1.RateLimit{RequestsPerSecond: 1} }), "InvalidSpec", "spec.delivery.rateLimit"},
		"timeout short":      {func(s *spec) { s.Timeout = seconds(time.Second - 1) }, "InvalidSpec", "spec.timeout: must be from 1s to 60s"},
		"timeout long":       {func(s *spec) { s.Timeout = seconds(time.Minute + 1) }, "InvalidSpec", "spec.timeout"},
		"timeout negative":   {func(s *spec) { s.Timeout = seconds(-time.Second) }, "InvalidSpec", "spec.timeout"},
		"initialDelay short": {func(s *spec) { s.Retry.InitialDelay = seconds(1) }, "InvalidSpec", "spec.retry.initialDelay: must be from 1s to 24h"},
		"initialDelay long":  {func(s *spec) { s.Retry.InitialDelay = seconds(25 * time.Hour) }, "InvalidSpec", "spec.retry.initialDelay"},
		"initial above max":  {func(s *spec) { s.Retry.InitialDelay = seconds(3 * time.Hour) }, "InvalidSpec", "must not be longer than maxDelay"},
		"maxDelay short":     {func(s *spec) { s.Retry.MaxDelay = seconds(1) }, "InvalidSpec", "spec.retry.maxDelay"},
		"maxDelay long":      {func(s *spec) { s.Retry.MaxDelay = seconds(25 * time.Hour) }, "InvalidSpec", "spec.retry.maxDelay"},
		"maxAge short":       {func(s *spec) { s.Retry.MaxAge = seconds(1) }, "InvalidSpec", "spec.retry.maxAge: must be from 1s to 168h"},
		"maxAge long":        {func(s *spec) { s.Retry.MaxAge = seconds(169 * time.Hour) }, "InvalidSpec", "spec.retry.maxAge"},
		"factor negative":    {func(s *spec) { s.Retry.Factor = -1 }, "InvalidSpec", "spec.retry.factor"},
		"factor large":       {func(s *spec) { s.Retry.Factor = 11 }, "InvalidSpec", "spec.retry.factor"},
		"maxAttempts 0":      {func(s *spec) { s.Retry.MaxAttempts = count(0) }, "InvalidSpec", "spec.retry.maxAttempts"},
		"maxAttempts large":  {func(s *spec) { s.Retry.MaxAttempts = count(10001) }, "InvalidSpec", "spec.retry.maxAttempts"},
		"maxInFlight":        {func(s *spec) { s.Delivery.MaxInFlight = -1 }, "InvalidSpec", "spec.delivery.maxInFlight"},
		"maxInFlight large":  {func(s *spec) { s.Delivery.MaxInFlight = 257 }, "InvalidSpec", "spec.delivery.maxInFlight"},
		"payload":            {func(s *spec) { s.Payload.Mode = "Half" }, "InvalidSpec", "spec.payload.mode"},
	} {
		t.Run(name, tc.run)
	}
}

func TestCompileRejectsNames(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*v1alpha1.WebhookSubscription){
		"metadata.name":      func(s *v1alpha1.WebhookSubscription) { s.Name = "Billing Sync" },
		"metadata.namespace": func(s *v1alpha1.WebhookSubscription) { s.Namespace = "clinic/a" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := minimal()
			edit(sub)
			_, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
			if err != nil || rejection == nil || rejection.Reason != "InvalidSpec" || !strings.HasPrefix(rejection.Message, name+": ") {
				t.Errorf("got %v, %v", rejection, err)
			}
		})
	}
}

func TestCompileTellsATransientFailureFromARejection(t *testing.T) {
	t.Parallel()
	away := errors.New("the API server is away")
	secrets := func(string) (map[string][]byte, bool, error) { return nil, false, away }
	entry, rejection, err := Compile(minimal(), Sources{Secrets: secrets}, Policy{Catalog: catalog(t)})
	if entry != nil || rejection != nil || !errors.Is(err, away) {
		t.Errorf("got %v, %v, %v", entry, rejection, err)
	}
}

// certificate returns a certificate in PEM, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func TestCompileCA(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	secret := func(name, key string) v1alpha1.SubscriptionTLS {
		ref := reference(name, key)
		return v1alpha1.SubscriptionTLS{CASecretRef: &ref}
	}
	configMap := func(name, key string) v1alpha1.SubscriptionTLS {
		return v1alpha1.SubscriptionTLS{CAConfigMapRef: &v1alpha1.ConfigMapKeyReference{Name: name, Key: key}}
	}
	both := secret("ca", "good")
	both.CAConfigMapRef = configMap("ca", "good").CAConfigMapRef
	values := map[string][]byte{
		"good": []byte(cert), "two": []byte("# ours\n" + cert + "\n" + cert), "none": nil, "text": []byte(canary), "key": []byte(cert + key),
		"cut": []byte(cert + cert[:len(cert)-40]), "bom": []byte("\ufeff" + cert + cert), "nbsp": []byte(cert + "\u00a0" + cert + cert),
		"indented": []byte(cert + "  " + cert), "utf16": []byte("\xff\xfe" + strings.Join(strings.Split(cert, ""), "\x00") + "\x00"),
		"crlf": []byte(strings.ReplaceAll(cert, "\n", "\r\n")),
		"junk": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(canary)}),
		"long": []byte(strings.Repeat(cert, 1+maxCABytes/len(cert))),
	}
	for name, tc := range map[string]struct {
		tls    v1alpha1.SubscriptionTLS
		want   string // Entry.CA
		reason string
		words  string
	}{
		"nothing":                   {v1alpha1.SubscriptionTLS{}, "", "", ""},
		"a Secret":                  {secret("ca", "good"), cert, "", ""},
		"a ConfigMap":               {configMap("ca", "two"), string(values["two"]), "", ""},
		"no Secret":                 {secret("other", "good"), "", "SecretNotFound", `Secret "other" not found`},
		"no key":                    {secret("ca", "other"), "", "SecretKeyMissing", "correct spec.tls.caSecretRef"},
		"no ConfigMap":              {configMap("other", "good"), "", "ConfigMapNotFound", `ConfigMap "other" not found`},
		"no key of it":              {configMap("ca", "other"), "", "ConfigMapKeyMissing", "correct spec.tls.caConfigMapRef"},
		"both":                      {both, "", "InvalidSpec", "at most one"},
		"no name":                   {configMap("", "good"), "", "InvalidSpec", "spec.tls.caConfigMapRef.name"},
		"empty":                     {secret("ca", "none"), "", "CertificatesInvalid", "no certificate"},
		"no PEM":                    {secret("ca", "text"), "", "CertificatesInvalid", "no certificate"},
		"a byte order mark":         {secret("ca", "bom"), "", "CertificatesInvalid", "1 of its 2 certificates cannot be read: put each -----BEGIN CERTIFICATE----- at the beginning of a line, with nothing before it; the text has a byte order mark (U+FEFF) at its beginning"},
		"a no-break space before":   {secret("ca", "nbsp"), "", "CertificatesInvalid", "1 of its 3 certificates cannot be read"},
		"indented":                  {secret("ca", "indented"), "", "CertificatesInvalid", "behind certificate 1 is not PEM"},
		"UTF-16":                    {secret("ca", "utf16"), "", "CertificatesInvalid", "the text has a byte order mark of UTF-16"},
		"Windows' line ends":        {secret("ca", "crlf"), strings.ReplaceAll(cert, "\n", "\r\n"), "", ""},
		"a private key":             {secret("ca", "key"), "", "CertificatesInvalid", "no private key"},
		"a certificate that is cut": {secret("ca", "cut"), "", "CertificatesInvalid", "behind certificate 1 is not PEM"},
		"no certificate in PEM":     {secret("ca", "junk"), "", "CertificatesInvalid", "certificate 1 cannot be parsed"},
		"too long":                  {secret("ca", "long"), "", "CertificatesInvalid", "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub, all := minimal(), clinicSecrets()
			sub.Spec.TLS = tc.tls
			all["ca"] = values
			entry, rejection, err := Compile(sub, secretsOf(all), Policy{Catalog: catalog(t)})
			if err != nil {
				t.Fatal(err)
			}
			if tc.reason == "" {
				if rejection != nil || entry.CA != tc.want {
					t.Errorf("got %v, want the certificates", rejection)
				}
				return
			}
			if rejection == nil || rejection.Reason != tc.reason || !strings.Contains(rejection.Message, tc.words) || strings.Contains(rejection.Message, canary) {
				t.Errorf("got %v, want %s: …%s…", rejection, tc.reason, tc.words)
			}
		})
	}
}

// TestRevision: an endpoint that answered 410 is tried again when anything that an attempt depends on is another.
func TestRevision(t *testing.T) {
	t.Parallel()
	revision := func(edit func(sub *v1alpha1.WebhookSubscription, secrets map[string]map[string][]byte)) int64 {
		sub, secrets := minimal(), clinicSecrets()
		sub.Spec.URL, sub.Spec.URLFrom = "", from("billing", "url")
		sub.Spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: from("billing", "token")}, {Name: "X-Team", Value: "a"}}
		sub.Spec.Signing.PreviousSecretRef = &v1alpha1.SecretKeyReference{Name: "billing-key", Key: "previous"}
		edit(sub, secrets)
		entry, rejection, err := Compile(sub, secretsOf(secrets), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
		}
		route, err := entry.Route()
		if err != nil {
			t.Fatal(err)
		}
		if route.Generation != sub.Generation {
			t.Errorf("the route's generation is %d, want that of the spec, %d", route.Generation, sub.Generation)
		}
		return route.Endpoint.Generation
	}
	type secrets = map[string]map[string][]byte
	first := revision(func(*v1alpha1.WebhookSubscription, secrets) {})
	for name, tc := range map[string]struct {
		edit func(*v1alpha1.WebhookSubscription, secrets)
		same bool
	}{
		"nothing":     {func(*v1alpha1.WebhookSubscription, secrets) {}, true},
		"another key": {func(_ *v1alpha1.WebhookSubscription, s secrets) { s["billing"]["unused"] = []byte("x") }, true},
		"Secret's URL": {func(_ *v1alpha1.WebhookSubscription, s secrets) {
			s["billing"]["url"] = []byte("https://new.example.com/")
		}, false},
		"Secret's token": {func(_ *v1alpha1.WebhookSubscription, s secrets) { s["billing"]["token"] = []byte("Bearer new") }, false},
		"signing key": {func(_ *v1alpha1.WebhookSubscription, s secrets) {
			s["billing-key"]["current"] = []byte("another key of 24 bytes or more")
		}, false},
		"previous key": {func(_ *v1alpha1.WebhookSubscription, s secrets) {
			s["billing-key"]["previous"] = []byte("another key of 24 bytes or more")
		}, false},
		"generation": {func(sub *v1alpha1.WebhookSubscription, _ secrets) { sub.Generation++ }, false},
	} {
		if got := revision(tc.edit); got <= 0 || (got == first) != tc.same {
			t.Errorf("%s: revision %d after %d, want the same: %v", name, got, first, tc.same)
		}
	}
}

// TestRevisionOfAnEarlierVersion: an entry that has none goes by the spec's generation.
func TestRevisionOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	entry := entryOf(1)
	route, err := entry.Route()
	if err != nil || route.Endpoint.Generation != entry.Generation || route.Tenant() != entry.Namespace {
		t.Errorf("got %+v, %v", route, err)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	previous, _, err := Compile(minimal(), secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil {
		t.Fatal(err)
	}
	previous.TLS = &TLS{Key: canary}
	before := *previous
	held := Hold(previous, 4, v1alpha1.ReasonSecretNotFound)
	want := before
	want.Generation, want.Waiting, want.URL, want.Header, want.Keys, want.TLS = 4, "SecretNotFound", "", nil, nil, nil
	want.Room = before.Cost()
	if diff := cmp.Diff(&want, held); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&before, previous); diff != "" {
		t.Error("Hold modified its argument", diff)
	}
	route, err := held.Route()
	if err != nil {
		t.Fatal(err)
	}
	if route.Endpoint.Target != nil || len(route.Patterns) != 2 || route.Generation != 4 {
		t.Errorf("got %+v", route)
	}
	if again := Hold(held, 5, v1alpha1.ReasonSecretNotFound); again.Cost() != before.Cost() {
		t.Errorf("an entry that waits takes %d of the table, want %d as before", again.Cost(), before.Cost())
	}
	if Hold(nil, 4, v1alpha1.ReasonSecretNotFound) != nil {
		t.Error("a subscription that was never accepted has an entry")
	}
}

func TestURLFromASecretMayHoldAPassword(t *testing.T) {
	t.Parallel()
	sub := minimal()
	sub.Spec.URL, sub.Spec.URLFrom = "", from("billing", "user")
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatalf("got %v, %v", rejection, err)
	}
	if got := entry.Origin(); got != "https://hooks.example.com" {
		t.Errorf("origin %q shows more than scheme, host and port", got)
	}
}

func TestSecretNames(t *testing.T) {
	t.Parallel()
	sub := minimal()
	previous := reference("old-key", "k")
	sub.Spec.Signing.PreviousSecretRef = &previous
	sub.Spec.URLFrom = from("url", "k")
	sub.Spec.Headers = []v1alpha1.Header{{Name: "A", Value: "v"}, {Name: "B", ValueFrom: from("token", "k")}, {Name: "C", ValueFrom: from("billing-key", "k")}}
	want := []string{"billing-key", "old-key", "token", "url"}
	if diff := cmp.Diff(want, SecretNames(sub)); diff != "" {
		t.Error(diff)
	}
	if got := SecretNames(&v1alpha1.WebhookSubscription{}); len(got) != 0 {
		t.Errorf("got %v of an empty spec", got)
	}
}

// TestReservedHeadersAreRefused: what egress would drop is refused, with the reason, when the subscription is accepted.
func TestReservedHeadersAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Trailer", "TE", "Expect", "Connection", "Keep-Alive", "Proxy-Connection",
		"Upgrade", "HTTP2-Settings", "ce-id", "ce_type", "webhook-id", "X-Clinik-Event", "X-ClinikAPI-Signature",
	} {
		if !egress.Reserved(name) || !reservedHeader(name) {
			t.Errorf("%s: reserved by egress %t, refused %t", name, egress.Reserved(name), reservedHeader(name))
		}
	}
	if egress.Reserved("User-Agent") || reservedHeader("User-Agent") || reservedHeader("X-Api-Key") {
		t.Error("a header that may be set is reserved")
	}
}
