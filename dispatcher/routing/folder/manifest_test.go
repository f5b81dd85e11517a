package folder

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const canary = "c4n4ry"

const subscriptionYAML = `apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: billing-sync, namespace: clinic-a}
spec:
  url: https://billing.example.com/hooks
  events: ["encounter.updated", "appointment.*"]
  signing: {secretRef: {name: billing-key, key: current}}
`

const secretYAML = `apiVersion: v1
kind: Secret
metadata: {name: billing-key, namespace: clinic-a}
stringData: {current: c4n4ry-key-of-24-bytes-or-more}
`

// declared lists what a content declares.
func declared(c *content) []string {
	var found []string
	for _, sub := range c.subscriptions {
		found = append(found, "subscription "+sub.Namespace+"/"+sub.Name)
	}
	for _, secret := range c.secrets {
		found = append(found, "secret "+secret.Namespace+"/"+secret.Name)
	}
	for _, kind := range c.ignored {
		found = append(found, "ignored "+kind)
	}
	return found
}

func TestParse(t *testing.T) {
	t.Parallel()
	const minimal = `"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookSubscription","metadata":{"name":"a"}`
	for name, tc := range map[string]struct {
		file, text string
		want       []string
	}{
		"nothing":       {"a.yaml", "", nil},
		"comments":      {"a.yaml", "# nothing\n---\n# here\n---\n", nil},
		"two documents": {"a.yml", subscriptionYAML + "---\n" + secretYAML, []string{"subscription clinic-a/billing-sync", "secret clinic-a/billing-key"}},
		"no namespace":  {"a.json", `{` + minimal + `}`, []string{"subscription default/a"}},
		"JSON twice":    {"a.json", `{` + minimal + `} {"apiVersion":"v1","kind":"Secret","metadata":{"name":"k"}}`, []string{"subscription default/a", "secret default/k"}},
		"JSON in YAML":  {"a.yaml", `{` + minimal + `}`, []string{"subscription default/a"}},
		"list":          {"a.JSON", `{"apiVersion":"v1","kind":"List","metadata":{},"items":[{` + minimal + `},{"apiVersion":"v1","kind":"Service"}]}`, []string{"subscription default/a", "ignored Service"}},
		"typed list":    {"a.json", `{"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookSubscriptionList","items":[{` + minimal + `}]}`, []string{"subscription default/a"}},
		"other kinds": {"a.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec: {what: ever}\n---\napiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookDispatcher\n",
			[]string{"ignored Deployment", "ignored WebhookDispatcher"}},
		"status":      {"a.json", `{` + minimal + `,"status":{"endpoint":"https://e"}}`, []string{"subscription default/a"}},
		"null fields": {"a.json", `{` + minimal + `,"spec":{"retry":{"maxAttempts":null},"payload":{},"suspend":false}}`, []string{"subscription default/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := parse(tc.file, []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, declared(c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	spec := func(lines string) string { return subscriptionYAML + lines }
	for name, tc := range map[string]struct{ file, text, want string }{
		"no YAML":            {"a.yaml", "spec: [c4n4ry", "document 1"},
		"tab":                {"a.yaml", "spec:\n\tc4n4ry: 1", "document 1"},
		"key twice":          {"a.yaml", spec("  url: https://c4n4ry.example.com/\n"), `"url" already set`},
		"no JSON":            {"a.json", `{"kind":`, "unexpected EOF"},
		"text":               {"a.yaml", "hello", "apiVersion and kind"},
		"a list of YAML":     {"a.yaml", "- a\n- b\n", "apiVersion and kind"},
		"no kind":            {"a.yaml", "apiVersion: v1\n", "must be set"},
		"no apiVersion":      {"a.yaml", "kind: Secret\n", "must be set"},
		"unknown field":      {"a.yaml", spec("  fliter: event.data.status == 'c4n4ry'\n"), `unknown field "spec.fliter"`},
		"other case":         {"a.yaml", spec("  Suspend: true\n"), `unknown field "spec.Suspend"`},
		"JSON key twice":     {"a.json", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"k"},"data":{},"data":{}}`, `duplicate field "data"`},
		"later version":      {"a.yaml", "apiVersion: webhooks.clinikapi.com/v1\nkind: WebhookSubscription\nmetadata: {name: a}\n", "webhooks.clinikapi.com/v1alpha1"},
		"misspelt kind":      {"a.yaml", "apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscripton\n", `"WebhookSubscripton" is not known`},
		"no name":            {"a.yaml", "apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\n", "metadata.name"},
		"Secret, no name":    {"a.yaml", "apiVersion: v1\nkind: Secret\n", "metadata.name"},
		"Secret's number":    {"a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {current: 4242424242}\n", "number is not what belongs there"},
		"Secret's base64":    {"a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\ndata: {current: c4n4ry!}\n", "illegal base64"},
		"Secret's field":     {"a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringdata: {current: c4n4ry}\n", `unknown field "stringdata"`},
		"wrong type":         {"a.yaml", spec("  suspend: c4n4ry\n"), "suspend"},
		"no duration":        {"a.yaml", spec("  timeout: soon\n"), "invalid duration"},
		"zero duration":      {"a.yaml", spec("  retry: {maxAge: 0s}\n"), "spec.retry.maxAge must not be empty or zero"},
		"zero factor":        {"a.yaml", spec("  retry: {factor: 0}\n"), "spec.retry.factor must not be empty or zero"},
		"zero in flight":     {"a.yaml", spec("  delivery: {maxInFlight: 0}\n"), "spec.delivery.maxInFlight must not be empty or zero"},
		"empty mode":         {"a.yaml", spec("  payload: {mode: \"\"}\n"), "spec.payload.mode must not be empty or zero"},
		"empty header":       {"a.yaml", spec("  headers: [{name: A, value: \"\"}]\n"), "spec.headers[0].value must not be empty or zero"},
		"no headers":         {"a.yaml", spec("  headers: []\n"), "spec.headers must not be empty or zero"},
		"ConfigMap, no name": {"a.yaml", "apiVersion: v1\nkind: ConfigMap\n", "metadata.name"},
		"Namespace, no name": {"a.yaml", "apiVersion: v1\nkind: Namespace\n", "metadata.name"},
		"second in a list":   {"a.json", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"k"}},{"kind":"Secret"}]}`, "item 2"},
		"lists in lists":     {"a.json", strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, 5) + strings.Repeat(`]}`, 5), "nested"},
		"aliases of aliases": {"a.yaml", bomb(), "document 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse(tc.file, []byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v; want an error with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "4242424242") {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

// bomb is a document that grows tenfold with each line.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 10; i++ {
		was := "*a" + string(rune('0'+i-1))
		b.WriteString("a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.Repeat(was+", ", 9) + was + "]\n")
	}
	return b.String()
}

func TestParseReturnsWhatItCouldRead(t *testing.T) {
	t.Parallel()
	c, err := parse("a.yaml", []byte(subscriptionYAML+"---\nkind: Secret\n---\n"+secretYAML))
	if err == nil || !strings.Contains(err.Error(), "document 2") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"subscription clinic-a/billing-sync", "secret clinic-a/billing-key"}, declared(c)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.yaml", subscriptionYAML+"---\n"+secretYAML)
	f.Add("a.json", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"k"}}]}`)
	f.Add("a.yaml", "a: &a [*a]")
	f.Fuzz(func(t *testing.T, name, text string) {
		c, _ := parse(name, []byte(text))
		for _, sub := range c.subscriptions {
			if sub.Name == "" || sub.Namespace == "" {
				t.Fatalf("a subscription without a name: %+v", sub)
			}
		}
		for _, secret := range c.secrets {
			if secret.Name == "" || secret.Namespace == "" {
				t.Fatalf("a Secret without a name: %+v", secret)
			}
		}
	})
}
