package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/dispatcher/kube"
)

const namespace = "eventflow-system"

// apiServer speaks as much of an API server's protocol as the source may use: get, list and watch of Secrets, to the
// names that the Role of a dispatcher "default" allows.
type apiServer struct {
	*httptest.Server

	mu        sync.Mutex
	version   int
	secrets   map[string]*corev1.Secret
	history   []change
	compacted int           // watches from before this version have expired
	changed   chan struct{} // closed at the next change
	cut       chan struct{} // closed to end every watch
	expire    bool          // the cut watches are told that they expired
	down      bool          // every request is refused
	watching  int
	denied    []string // requests that the Role does not allow
	gets      map[string]int
}

type change struct {
	version int
	kind    string
	secret  *corev1.Secret
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{version: 10, secrets: map[string]*corev1.Secret{}, changed: make(chan struct{}), cut: make(chan struct{}), gets: map[string]int{}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.cutWatches(false)
		a.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.denied) > 0 {
			t.Errorf("requests beyond the Role: %v", a.denied)
		}
	})
	return a
}

func (a *apiServer) client(t *testing.T) Secrets {
	t.Helper()
	clients, err := kube.New(&rest.Config{Host: a.URL, QPS: -1, Transport: a.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	return clients.Secrets(namespace)
}

// put writes a Secret with one key, or deletes it if data is nil.
func (a *apiServer) put(name, key string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	kind, secret := "MODIFIED", &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, ResourceVersion: strconv.Itoa(a.version)},
		Data:       map[string][]byte{key: data},
	}
	switch {
	case data == nil:
		kind = "DELETED"
		delete(a.secrets, name)
	case a.secrets[name] == nil:
		kind = "ADDED"
		fallthrough
	default:
		a.secrets[name] = secret
	}
	a.history = append(a.history, change{a.version, kind, secret})
	close(a.changed)
	a.changed = make(chan struct{})
}

// cutWatches ends every watch, with an ERROR event first if they expired.
func (a *apiServer) cutWatches(expired bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire = expired
	if expired {
		a.compacted = a.version
	}
	close(a.cut)
	a.cut = make(chan struct{})
}

// watched waits until the source watches.
func (a *apiServer) watched(t *testing.T) {
	t.Helper()
	eventually(t, "a watch", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.watching == 1
	})
}

// got is how often each shard was got.
func (a *apiServer) got() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.gets)
}

// stop makes the server refuse every request, or serve again.
func (a *apiServer) stop(down bool) {
	a.mu.Lock()
	a.down = down
	a.mu.Unlock()
	if down {
		a.cutWatches(false)
		a.CloseClientConnections()
	}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	down := a.down
	a.mu.Unlock()
	if down {
		status(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable)
		return
	}
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"+namespace+"/secrets"), "/")
	switch {
	case r.Method == http.MethodGet && strings.HasPrefix(name, "default-routes-"):
		a.serveGet(w, name)
	case r.Method == http.MethodGet && name == "" && r.URL.Query().Get("fieldSelector") == "metadata.name=default-routes":
		if r.URL.Query().Get("watch") == "true" {
			a.serveWatch(w, r)
		} else {
			a.serveList(w)
		}
	default:
		a.mu.Lock()
		a.denied = append(a.denied, r.Method+" "+r.URL.String())
		a.mu.Unlock()
		status(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	}
}

func (a *apiServer) serveGet(w http.ResponseWriter, name string) {
	a.mu.Lock()
	a.gets[name]++
	secret := a.secrets[name]
	a.mu.Unlock()
	if secret == nil {
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	answer(w, http.StatusOK, secret)
}

func (a *apiServer) serveList(w http.ResponseWriter) {
	a.mu.Lock()
	list := &corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(a.version)}}
	if index := a.secrets["default-routes"]; index != nil {
		list.Items = append(list.Items, *index)
	}
	a.mu.Unlock()
	answer(w, http.StatusOK, list)
}

func (a *apiServer) serveWatch(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	a.mu.Lock()
	expired := from < a.compacted
	a.watching++
	cut := a.cut
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.watching--
		a.mu.Unlock()
	}()
	if err != nil || expired {
		status(w, http.StatusGone, metav1.StatusReasonExpired)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for {
		a.mu.Lock()
		for _, c := range a.history {
			if c.version > from && c.secret.Name == "default-routes" {
				send(w, c.kind, c.secret)
				from = c.version
			}
		}
		changed := a.changed
		a.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-cut:
			a.mu.Lock()
			expired := a.expire
			a.mu.Unlock()
			if expired {
				send(w, "ERROR", &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired})
			}
			return
		}
	}
}

func send(w http.ResponseWriter, kind string, object runtime.Object) {
	raw, err := json.Marshal(object)
	if err == nil {
		_, err = fmt.Fprintf(w, `{"type":%q,"object":%s}`+"\n", kind, raw)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Reason: reason})
}

func answer(w http.ResponseWriter, code int, object runtime.Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(object); err != nil {
		panic(http.ErrAbortHandler)
	}
}
