package apiserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// clinics are the namespaces of the tests of rights. Whatever is in one has its name in it.
var clinics = []string{"clinic-a", "clinic-b"}

// role is what a user may do in each namespace, as RoleBindings give it.
type role map[string][]rbacv1.PolicyRule

// allows evaluates the rules as Kubernetes does (RBAC: a verb, a group and a resource with its subresource, all of one rule).
func (r role) allows(namespace, verb, resource string) bool {
	return slices.ContainsFunc(r[namespace], func(rule rbacv1.PolicyRule) bool {
		has := func(all []string, one string) bool { return slices.Contains(all, one) || slices.Contains(all, "*") }
		return has(rule.Verbs, verb) && has(rule.APIGroups, v1alpha1.GroupVersion.Group) && has(rule.Resources, resource)
	})
}

var (
	allVerbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	allResources = []string{
		"webhookdeliveries", "webhookdeliveries/replay", "webhookdeliveries/cancel", "webhookdeliveries/sendnow", "webhookevents", "webhookevents/payload",
	}
)

// randomRole gives up to three rules in each of the namespaces, some of them with everything or of another group.
func randomRole(random *rand.Rand) role {
	some := func(of []string) (all []string) {
		for _, one := range of {
			if random.IntN(3) == 0 {
				all = append(all, one)
			}
		}
		if random.IntN(12) == 0 {
			all = append(all, "*")
		}
		return all
	}
	r := role{}
	for _, namespace := range clinics {
		for range random.IntN(4) {
			group := v1alpha1.GroupVersion.Group
			if random.IntN(6) == 0 {
				group = "webhooks.clinikapi.com"
			}
			r[namespace] = append(r[namespace], rbacv1.PolicyRule{APIGroups: []string{group}, Verbs: some(allVerbs), Resources: some(allResources)})
		}
	}
	return r
}

// asked is a request, and the right that it takes.
type asked struct{ method, namespace, path, verb, resource string }

// questions are requests of every verb to a namespace: of what is there, of what is in another namespace, and of nothing; by pages,
// tokens and selectors; and with errors in them.
func questions(namespace string, names, events, tokens []string) (all []asked) {
	add := func(method, path, verb, resource string) {
		all = append(all, asked{method, namespace, path, verb, resource})
	}
	for _, resource := range []string{"webhookdeliveries", "webhookevents"} {
		selectors := []string{
			"", "?limit=1", "?limit=nonsense", "?labelSelector=a%3Db", "?fieldSelector=nonsense", "?fieldSelector=metadata.namespace%3Dclinic-b",
			"?fieldSelector=event.id%3Devt-of-clinic-b-0", "?fieldSelector=subscription%3Dsub-of-clinic-b", "?resourceVersion=1",
		}
		for _, token := range tokens {
			selectors = append(selectors, "?continue="+token, "?limit=1&continue="+token)
		}
		for _, selector := range selectors {
			add(http.MethodGet, resource+selector, "list", resource)
		}
		add(http.MethodPost, resource, "create", resource)
		add(http.MethodDelete, resource, "deletecollection", resource)
		add(http.MethodGet, resource+"?watch=true&resourceVersion=1", "watch", resource)
		add(http.MethodGet, resource+"?watch=1&fieldSelector=nonsense", "watch", resource)
	}
	for _, one := range []struct {
		resource     string
		names        []string
		subresources map[string]string
	}{
		{"webhookdeliveries", names, map[string]string{"replay": "create", "cancel": "create", "sendnow": "create"}},
		{"webhookevents", events, map[string]string{"payload": "get"}},
	} {
		for _, name := range one.names {
			path := one.resource + "/" + name
			for method, verb := range map[string]string{http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"} {
				add(method, path, verb, one.resource)
			}
			add(http.MethodGet, path+"?watch=true", "get", one.resource)
			for subresource, verb := range one.subresources {
				method := map[string]string{"create": http.MethodPost, "get": http.MethodGet}[verb]
				add(method, path+"/"+subresource, verb, one.resource+"/"+subresource)
			}
		}
	}
	return all
}

// marked stores an event with one delivery whose every text names the namespace.
func (f *fixture) marked(t *testing.T, namespace string, i int) delivery.PendingDelivery {
	t.Helper()
	sub := &delivery.Subscription{Key: event.NewSubscriptionKey(namespace), Tenant: "uid-" + namespace, Name: "sub-of-" + namespace}
	id := fmt.Sprintf("evt-of-%s-%d", namespace, i)
	e := store.NewEvent{Digest: [16]byte{1}, Fanout: delivery.Fanout{
		Event: &delivery.Event{Tenant: sub.Tenant, ID: id, Type: "lab.created", Body: []byte(`{"data":"file-of-` + namespace + `"}`)}, Subscriptions: []*delivery.Subscription{sub},
	}}
	_, fanouts, err := f.feed.Append(t.Context(), []store.NewEvent{e})
	if err != nil || len(fanouts) != 1 {
		t.Fatal(fanouts, err)
	}
	return fanouts[0].Delivery(sub)
}

// byRole lets users do what their roles say.
type byRole struct {
	roles map[string]role
}

func (a byRole) AuthorizeUser(_ context.Context, user *authenticationv1.UserInfo, access Access) error {
	resource := access.Resource
	if access.Subresource != "" {
		resource += "/" + access.Subresource
	}
	if a.roles[user.Username].allows(access.Namespace, access.Verb, resource) {
		return nil
	}
	return ErrForbidden
}

// TestRandomRoles: with roles made at random, what a user can do is what RBAC says, in every verb, page, token, watch, count and error. A
// refusal is the same byte for byte on a server that holds nothing; an answer names nothing of the other namespace.
func TestRandomRoles(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(11, 1))
	roles := byRole{map[string]role{"all": {}}}
	for _, namespace := range clinics {
		roles.roles["all"][namespace] = []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Verbs: []string{"*"}, Resources: []string{"*"}}}
	}
	for i := range 60 {
		roles.roles[fmt.Sprint("user-", i)] = randomRole(random)
	}
	f, empty := newFixtureOf(t, roles), newFixtureOf(t, roles)
	ids, events, tokens := map[string][]string{}, map[string][]string{}, []string{}
	for _, namespace := range clinics {
		for i := range 3 {
			d := f.marked(t, namespace, i)
			ids[namespace] = append(ids[namespace], d.ID.String())
			events[namespace] = append(events[namespace], fmt.Sprintf("evt-of-%s-%d", namespace, i))
			if i == 1 {
				f.finish(t, d, delivery.Failed)
			}
		}
		for _, resource := range []string{"webhookdeliveries", "webhookevents"} {
			var page v1alpha1.WebhookDeliveryList
			_, body := f.do(t, "all", http.MethodGet, versionPath+"/namespaces/"+namespace+"/"+resource+"?limit=1")
			if err := json.Unmarshal([]byte(body), &page); err != nil || page.Continue == "" {
				t.Fatal(body, err)
			}
			tokens = append(tokens, page.Continue)
		}
	}
	names := slices.Concat(ids["clinic-a"][:2], ids["clinic-b"][:2], []string{"dlv_none"})
	known := slices.Concat(events["clinic-a"][:2], events["clinic-b"][:2], []string{"evt-none"})
	allowed, refused := 0, 0
	for user, r := range roles.roles {
		for _, namespace := range clinics {
			for _, q := range questions(namespace, names, known, tokens) {
				path := versionPath + "/namespaces/" + q.namespace + "/" + q.path
				may := r.allows(q.namespace, q.verb, q.resource)
				code, body := f.do(t, user, q.method, path)
				if (code != http.StatusForbidden) != may {
					t.Fatalf("%s %s: %d, and the role says %v: %+v", q.method, path, code, may, r)
				}
				said, other := body, clinics[0]
				if namespace == other {
					other = clinics[1]
				}
				// What was asked for may stand in the answer, as in "not found"; that is no news.
				for _, asked := range slices.Concat(names, known) {
					body = strings.ReplaceAll(body, asked, "") + tellsOf(body, asked, q.path)
				}
				if strings.Contains(body, "of-"+other) && !strings.Contains(q.path, "of-"+other) {
					t.Fatalf("%s %s tells of %s: %s", q.method, path, other, body)
				}
				if may {
					allowed++
					continue
				}
				refused++
				if _, nothing := empty.do(t, user, q.method, path); nothing != said {
					t.Fatalf("%s %s: refused with %s, and with %s where there is nothing", q.method, path, body, nothing)
				}
			}
		}
	}
	if allowed < 1000 || refused < 1000 {
		t.Errorf("%d were allowed and %d refused: the roles are too much alike", allowed, refused)
	}
}

// tellsOf returns what an answer tells of a name that was not asked for.
func tellsOf(body, name, path string) string {
	if strings.Contains(body, name) && !strings.Contains(path, name) {
		return name
	}
	return ""
}

// TestWatchOfARole: who may watch one namespace sees the changes of it, and none of another that changes meanwhile.
func TestWatchOfARole(t *testing.T) {
	t.Parallel()
	roles := byRole{map[string]role{"watcher": {"clinic-a": {{APIGroups: []string{v1alpha1.GroupVersion.Group}, Verbs: []string{"watch", "list"}, Resources: []string{"webhookdeliveries"}}}}}}
	f := newFixtureOf(t, roles)
	var page v1alpha1.WebhookDeliveryList
	_, body := f.do(t, "watcher", http.MethodGet, versionPath+"/namespaces/clinic-a/webhookdeliveries")
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+versionPath+"/namespaces/clinic-a/webhookdeliveries?watch=true&resourceVersion="+page.ResourceVersion, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Remote-User", "watcher")
	answer, err := f.Client().Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	defer answer.Body.Close()
	for i := range 20 {
		f.marked(t, "clinic-b", i)
	}
	f.marked(t, "clinic-a", 0)
	line, err := bufio.NewReader(answer.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, "sub-of-clinic-a") || strings.Contains(line, "of-clinic-b") {
		t.Errorf("the first event is %s, %v", line, err)
	}
}
