package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// controlPlane is an API server with as much of its protocol as a dispatcher uses, and a manager's hand on its Secrets. It
// knows every namespace.
type controlPlane struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	version int
	secrets map[string]*corev1.Secret
	changed chan struct{} // closed at the next change
	// silent are parts of paths whose requests are never answered.
	silent   []string
	statuses []string // what was written to dispatchers' statuses
	volume   string   // what of it is said of the volume
}

func newControlPlane(t *testing.T, silent ...string) *controlPlane {
	t.Helper()
	c := &controlPlane{t: t, version: 1, secrets: map[string]*corev1.Secret{}, changed: make(chan struct{}), silent: silent}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
	})
	return c
}

// kubeconfig is a file that names the server.
func (c *controlPlane) kubeconfig() string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"x","clusters":[{"name":"x","cluster":{"server":%q}}],
"contexts":[{"name":"x","context":{"cluster":"x","user":"x"}}],"users":[{"name":"x","user":{"token":"t"}}]}`, c.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// put writes a Secret with one key.
func (c *controlPlane) put(name, key string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.secrets[name] = &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "eventflow-system", ResourceVersion: strconv.Itoa(c.version)},
		Data:       map[string][]byte{key: data},
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// route writes the routing table: one subscription of clinic-a to everything, which posts to url.
func (c *controlPlane) route(url string) {
	c.t.Helper()
	entry := &routing.Entry{
		Identity: "sub", Namespace: "clinic-a", Name: "all", Generation: 1, Tenant: "uid-clinic-a", Patterns: []event.Pattern{event.All},
		URL: url, Keys: [][]byte{[]byte(signingKey)}, Timeout: 30 * time.Second, MaxInFlight: 32,
		Retry: routing.Retry{Initial: time.Second, Max: time.Second, MaxAge: time.Hour, Factor: 1},
	}
	index, shards, err := routing.EncodeTable(1, []*routing.Entry{entry})
	if err != nil {
		c.t.Fatal(err)
	}
	for i, shard := range shards {
		c.put(routing.ShardName("default", i), routing.ShardKey, shard)
	}
	text, err := index.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(routing.IndexName("default"), routing.IndexKey, text)
}

// set writes settings.
func (c *controlPlane) set(s settings.Settings) {
	c.t.Helper()
	text, err := s.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(settings.SecretName("default"), settings.Key, text)
}

// inForce is the generation of the settings that the dispatcher's status says.
func (c *controlPlane) inForce() (generation int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range c.statuses {
		var object struct {
			Status struct{ SettingsGeneration int64 }
		}
		if json.Unmarshal([]byte(text), &object) == nil && object.Status.SettingsGeneration > 0 {
			generation = object.Status.SettingsGeneration
		}
	}
	return generation
}

func (c *controlPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, part := range c.silent {
		if strings.Contains(r.URL.Path, part) {
			_, _ = io.Copy(io.Discard, r.Body) // until it is read, the server does not notice that a client leaves
			<-r.Context().Done()
			return
		}
	}
	const secrets = "/api/v1/namespaces/eventflow-system/secrets"
	path := r.URL.Path
	selected, _ := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	switch {
	case path == secrets && r.URL.Query().Get("watch") != "":
		c.watch(w, r, selected)
	case path == secrets:
		c.list(w, selected)
	case strings.HasPrefix(path, secrets+"/"):
		c.get(w, strings.TrimPrefix(path, secrets+"/"))
	case strings.HasPrefix(path, "/api/v1/namespaces/"):
		name := strings.TrimPrefix(path, "/api/v1/namespaces/")
		reply(w, http.StatusOK, &corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		})
	case strings.Contains(path, "/webhookdispatchers/") && strings.HasSuffix(path, "/status"):
		c.status(w, r)
	default:
		reply(w, http.StatusNotFound, &metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		})
	}
}

func (c *controlPlane) get(w http.ResponseWriter, name string) {
	c.mu.Lock()
	secret := c.secrets[name]
	c.mu.Unlock()
	if secret == nil {
		http.NotFound(w, nil)
		return
	}
	reply(w, http.StatusOK, secret)
}

func (c *controlPlane) list(w http.ResponseWriter, name string) {
	c.mu.Lock()
	all := &corev1.SecretList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(c.version)},
	}
	if secret := c.secrets[name]; secret != nil {
		all.Items = append(all.Items, *secret)
	}
	c.mu.Unlock()
	reply(w, http.StatusOK, all)
}

// watch sends the Secret each time it changes. It knows no initial events: clients list first.
func (c *controlPlane) watch(w http.ResponseWriter, r *http.Request, name string) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		reply(w, http.StatusUnprocessableEntity, &metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		})
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for {
		c.mu.Lock()
		secret, changed := c.secrets[name], c.changed
		c.mu.Unlock()
		if secret != nil {
			if version, _ := strconv.Atoi(secret.ResourceVersion); version > from {
				from = version
				object, _ := json.Marshal(secret)
				fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`+"\n", object)
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// status answers reads of a dispatcher's status, and takes writes.
func (c *controlPlane) status(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPatch {
		var body json.RawMessage
		var object struct {
			Status struct{ Volume json.RawMessage }
		}
		if json.NewDecoder(r.Body).Decode(&body) == nil && json.Unmarshal(body, &object) == nil {
			c.mu.Lock()
			c.statuses = append(c.statuses, string(body))
			c.volume = cmp.Or(string(object.Status.Volume), c.volume)
			c.mu.Unlock()
		}
	}
	c.mu.Lock()
	volume := cmp.Or(c.volume, "{}")
	c.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookDispatcher","metadata":{"name":"default","generation":1},"status":{"volume":`+volume+`}}`)
}

func reply(w http.ResponseWriter, code int, object runtime.Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object)
}
