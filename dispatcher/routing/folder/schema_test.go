package folder

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestFolderTakesWhatTheSchemaTakes holds a folder to the rules of the resource's schema: patches of a valid
// subscription, each of which an API server accepts or refuses (package v1alpha1 shows it the same). A null removes.
func TestFolderTakesWhatTheSchemaTakes(t *testing.T) {
	t.Parallel()
	for _, patch := range schemaAccepts() {
		if problem := submit(t, patch); problem != "" {
			t.Errorf("%.200s: refused: %s", patch, problem)
		}
	}
	for _, patch := range schemaRefuses() {
		if submit(t, patch) == "" {
			t.Errorf("%.200s: accepted", patch)
		}
	}
}

func schemaAccepts() []string {
	return []string{
		"{}",
		"{url: http://a}", "{url: 'https://example.com:8443/hooks?tenant=a%20b&x=@'}", "{url: 'http://[2001:db8::1]:8080/hooks'}",
		"{url: HTTPS://EXAMPLE.COM/hooks}", "{url: 'https://example.com:1'}", "{url: 'https://example.com:65535'}", "{url: 'https://example.com:'}",
		"{url: 'https://example.com/:65536'}", "{url: 'https://example.com/%23'}", "{url: 'https://example.com/@me'}",
		"{url: 'https://example.com/" + strings.Repeat("x", 2048-len("https://example.com/")) + "'}",
		"{url: null, urlFrom: {secretKeyRef: {name: k, key: url}}}",
		"{events: [patient.created]}", "{events: [practitioner-role.*, lab.updated]}", "{events: ['*', patient.*]}",
		"{signing: {previousSecretRef: {name: k, key: url}}}",
		"{dispatcherRef: {}}", "{dispatcherRef: null}", "{dispatcherRef: {name: europe-1, namespace: clinics}}", "{dispatcherRef: {name: " + strings.Repeat("x", 40) + "}}",
		"{headers: [{name: X-Team, value: billing}, {name: Authorization, value: x}, {name: \"!#$%&'*+.^_`|~-\", value: x}]}",
		"{headers: [{name: X-Clinician, value: x}, {name: Hostname, value: x}, {name: Webhook, value: x}, {name: Contents, value: x}]}",
		"{headers: [{name: " + strings.Repeat("x", 128) + ", value: x}]}",
		`{headers: [{name: X-Team, value: "a\tb"}]}`, "{headers: [{name: X-Team, value: Praxis Müller}]}",
		"{headers: [{name: X-Team, value: " + strings.Repeat("x", 4096) + "}]}", "{headers: [{name: X-Team, value: " + strings.Repeat("ü", 4096) + "}]}",
		"{headers: [{name: X-Team, valueFrom: {secretKeyRef: {name: k, key: url}}}]}",
		"{timeout: 1s}", "{timeout: 60s}", "{timeout: 1s1ms}", "{timeout: 1m}", "{timeout: 1.5s}",
		"{retry: {}}", "{retry: {maxDelay: 24h, initialDelay: 24h}}", "{retry: {initialDelay: 1s, maxDelay: 1s}}", "{retry: {maxAge: 168h}}", "{retry: {maxAge: 1s}}",
		"{retry: {initialDelay: 60s, maxDelay: 1m}}", "{retry: {initialDelay: 2h}}", "{retry: {factor: 1}}", "{retry: {factor: 10}}",
		"{retry: {maxAttempts: 1}}", "{retry: {maxAttempts: 10000}}", "{retry: {maxAttempts: null}}",
		"{delivery: {}}", "{delivery: {maxInFlight: 1}}", "{delivery: {maxInFlight: 256}}", "{delivery: {ordering: None}}", "{delivery: {ordering: ByResource}}",
		"{delivery: {rateLimit: {requestsPerSecond: 1}}}", "{delivery: {rateLimit: {requestsPerSecond: 10000}}}",
		"{filter: event.data.status == 'finished'}", "{filterErrors: Skip, filter: 'true'}",
		"{payload: {mode: Full}}", "{payload: {mode: Thin}}", "{payload: {}}", "{suspend: true}", "{suspend: false}",
	}
}

func schemaRefuses() []string {
	refused := []string{
		"{url: /hooks/of/mine}", "{url: example.com/hooks}", "{url: 'ftp://example.com/'}", "{url: 'https:///hooks'}", "{url: 'https:hooks'}",
		"{url: 'https://:8443/hooks'}", `{url: "https://a\nb.com/"}`, "{url: 'http://'}", "{url: ''}", "{url: null}",
		"{url: 'https://example.com/" + strings.Repeat("x", 2049-len("https://example.com/")) + "'}",
		"{url: 'https://example.com:0'}", "{url: 'https://example.com:65536/hooks'}", "{url: 'https://[::1]:100000?x'}",
		"{url: 'https://example.com/hooks#top'}", "{url: 'https://me:secret@example.com/'}", "{url: 'https://token@example.com'}",
		"{urlFrom: {secretKeyRef: {name: k, key: url}}}", "{url: null, urlFrom: {}}", "{url: '', urlFrom: {secretKeyRef: {name: k, key: url}}}",
		"{events: [patient]}", "{events: ['*.created']}", "{events: ['*', pat*.*]}", "{events: [patient.read]}", "{events: [Patient.created]}",
		"{events: [-patient.created]}", "{events: [patient.created.]}", `{events: ["patient.*\n"]}`, "{events: ['']}", "{events: null}", "{events: []}",
		"{events: [patient.*, patient.*]}", "{events: " + numbered(101, "r%d.*") + "}", "{events: [" + strings.Repeat("x", 65) + ".created]}",
		"{signing: null}", "{signing: {secretRef: null}}", "{signing: {}, signing2: {}}",
		"{dispatcherRef: {name: ''}}", "{dispatcherRef: {name: Europe}}", "{dispatcherRef: {name: " + strings.Repeat("x", 41) + "}}",
		"{dispatcherRef: {namespace: ''}}", "{dispatcherRef: {namespace: a.b}}", "{dispatcherRef: {namespace: " + strings.Repeat("x", 64) + "}}",
		"{dispatcherRef: {name: default, kind: Other}}",
		"{headers: []}", "{headers: " + numbered(33, "{name: X-%d, value: x}") + "}", "{headers: [{value: x}]}", "{headers: [{name: '', value: x}]}",
		"{headers: [{name: X-A, value: x}, {name: X-A, value: z}]}", "{headers: [{name: X-A, value: x}, {name: x-a, value: z}]}",
		"{headers: [{name: " + strings.Repeat("x", 129) + ", value: x}]}", "{headers: [{name: X-Team}]}", "{headers: [{name: X-Team, value: ''}]}",
		"{headers: [{name: X-Team, value: x, valueFrom: {secretKeyRef: {name: k, key: url}}}]}", "{headers: [{name: X-Team, valueFrom: {}}]}",
		"{headers: [{name: X-Team, value: " + strings.Repeat("x", 4097) + "}]}",
		"{retry: {initialDelay: 3h}}", "{retry: {factor: 0}}", "{retry: {factor: 11}}", "{retry: {maxAttempts: 0}}", "{retry: {maxAttempts: 10001}}",
		"{retry: {maxRetries: 3}}", "{delivery: {maxInFlight: 0}}", "{delivery: {maxInFlight: 257}}", "{delivery: {ordering: ''}}", "{delivery: {ordering: byResource}}",
		"{delivery: {rateLimit: {}}}", "{delivery: {rateLimit: {requestsPerSecond: 0}}}", "{delivery: {rateLimit: {requestsPerSecond: 10001}}}",
		"{filter: ''}", "{filterErrors: Retry}", "{filter: " + strings.Repeat("x", 4097) + "}",
		"{payload: {mode: thin}}", "{payload: {mode: ''}}", "{filters: event.data.status == 'finished'}",
	}
	for _, name := range []string{
		"'X Team'", `"X-Team\r\nX-Other"`, "'X-Team:'", "Prénom", "host", "Content-Length", "TRANSFER-ENCODING", "X-Clinik-Signature", "x-clinikapi-signature",
		"Webhook-Id", "Proxy-Authorization",
	} {
		refused = append(refused, "{headers: [{name: "+name+", value: x}]}")
	}
	for _, value := range []string{`"a\nb"`, `"a\rb"`, `"a\u0000b"`, `"a\u007fb"`} {
		refused = append(refused, "{headers: [{name: X-Team, value: "+value+"}]}")
	}
	for _, duration := range []string{"999ms", "'-1s'", "0s", "169h", "1d", "soon", "''", "'30'", "30", "1s1us", "'+1s'", strings.Repeat("1s", 16) + "1s"} {
		for _, field := range []string{"{timeout: %s}", "{retry: {maxDelay: 24h, initialDelay: %s}}", "{retry: {initialDelay: 1s, maxDelay: %s}}", "{retry: {maxAge: %s}}"} {
			refused = append(refused, fmt.Sprintf(field, duration))
		}
	}
	for _, ref := range []string{
		"{name: null, key: url}", "{name: k, key: null}", "{name: '', key: url}", "{name: Billing_Key, key: url}", "{name: " + strings.Repeat("x", 254) + ", key: url}",
		"{name: k, key: ''}", "{name: k, key: a/b}", "{name: k, key: " + strings.Repeat("k", 254) + "}",
	} {
		for _, field := range []string{
			"{signing: {secretRef: %s}}", "{signing: {previousSecretRef: %s}}", "{signing: {nextSecretRef: %s}}", "{url: null, urlFrom: {secretKeyRef: %s}}", "{headers: [{name: X-Team, valueFrom: {secretKeyRef: %s}}]}",
		} {
			refused = append(refused, fmt.Sprintf(field, ref))
		}
	}
	return refused
}

// numbered is a YAML list of n items.
func numbered(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// submit compiles a patched subscription as a folder does, and returns what is wrong with it.
func submit(t *testing.T, patch string) string {
	t.Helper()
	var object, change map[string]any
	err := yaml.Unmarshal([]byte(subscriptionYAML), &object)
	if err == nil {
		err = yaml.Unmarshal([]byte(patch), &change)
	}
	if err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	merge(object["spec"].(map[string]any), change)
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	const secrets = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"k","namespace":"clinic-a"},"stringData":{"url":"https://example.com/hooks"}}
		{"apiVersion":"v1","kind":"Secret","metadata":{"name":"billing-key","namespace":"clinic-a"},"stringData":{"current":"c4n4ry-key-of-24-bytes-or-more"}}`
	c, err := parse("a.json", append(text, secrets...))
	if err != nil {
		return err.Error()
	}
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	_, problems := compile(map[string]*file{"a.yaml": {content: c}}, routing.Policy{Catalog: catalog, AllowHTTP: true}, nil)
	if i := slices.IndexFunc(problems, func(p routing.Problem) bool { return p.Reason != "" }); i >= 0 {
		return problems[i].Message
	}
	return ""
}

// merge lays a patch over an object (RFC 7396).
func merge(object, patch map[string]any) {
	for _, key := range slices.Collect(maps.Keys(patch)) {
		inner, isMap := patch[key].(map[string]any)
		existing, wasMap := object[key].(map[string]any)
		switch {
		case patch[key] == nil:
			delete(object, key)
		case isMap && wasMap:
			merge(existing, inner)
		default:
			object[key] = patch[key]
		}
	}
}
