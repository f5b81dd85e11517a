package trigger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/cli/exit"
)

// call runs the command.
func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := Command("1.0")
	command.SilenceErrors, command.SilenceUsage = true, true
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

// userToken is that of the kubeconfig's user.
const userToken = "token-of-the-user"

// kubeconfig writes one whose cluster is a server, and whose context has the namespace clinic-a.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: server, InsecureSkipTLSVerify: true}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: userToken}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: "clinic-a"}
	config.CurrentContext = "x"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// cluster is an API server that knows subscriptions and WebhookDispatchers, and makes tokens.
func cluster(t *testing.T, dispatchers ...v1alpha1.WebhookDispatcher) *httptest.Server {
	t.Helper()
	const group = "/apis/webhooks.clinikapi.com/v1alpha1"
	write := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(value)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+group+"/namespaces/clinic-a/webhooksubscriptions/reminder", func(w http.ResponseWriter, _ *http.Request) {
		sub := v1alpha1.WebhookSubscription{}
		sub.APIVersion, sub.Kind, sub.Name, sub.Namespace = v1alpha1.GroupVersion.String(), "WebhookSubscription", "reminder", "clinic-a"
		sub.Spec.DispatcherRef.Name = "cell-2"
		write(w, sub)
	})
	list := func(w http.ResponseWriter, _ *http.Request) {
		all := v1alpha1.WebhookDispatcherList{Items: dispatchers}
		all.APIVersion, all.Kind = v1alpha1.GroupVersion.String(), "WebhookDispatcherList"
		write(w, all)
	}
	mux.HandleFunc("GET "+group+"/webhookdispatchers", list)
	mux.HandleFunc("GET "+group+"/namespaces/{namespace}/webhookdispatchers", list)
	mux.HandleFunc("POST /api/v1/namespaces/clinic-a/serviceaccounts/ehr/token", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": map[string]any{"token": "token-of-ehr"}})
	})
	server := httptest.NewTLSServer(mux) // credentials go over TLS alone
	t.Cleanup(server.Close)
	return server
}

func dispatcherAt(namespace, name, url string) v1alpha1.WebhookDispatcher {
	d := v1alpha1.WebhookDispatcher{}
	d.Namespace, d.Name, d.Status.PublishURL = namespace, name, url
	return d
}

// dispatcherAPI answers publishes with a status and a body, and notes the Authorization of the last.
func dispatcherAPI(t *testing.T, status int, body string, authorization *string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*authorization = r.Header.Get("Authorization")
		if r.URL.Path != "/v1/namespaces/clinic-a/events" || r.Header.Get("Content-Type") != "application/json" {
			status, body = http.StatusNotFound, r.URL.Path
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

// TestDispatcherOfTheCluster: the dispatcher is that of the subscription, and gets the credentials that the flags name.
func TestDispatcherOfTheCluster(t *testing.T) {
	t.Parallel()
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("token-of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"the user's":         {[]string{"reminder"}, userToken},
		"a token":            {[]string{"reminder", "--token", "token-of-a-flag"}, "token-of-a-flag"},
		"of a file":          {[]string{"reminder", "--token-file", tokenFile}, "token-of-a-file"},
		"a ServiceAccount's": {[]string{"reminder", "--service-account", "ehr"}, "token-of-ehr"},
		"by its name":        {[]string{"--dispatcher", "cells/cell-2"}, userToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			api := dispatcherAPI(t, http.StatusAccepted, `{"id":"evt_1","deliveries":0}`, &got)
			kube := cluster(t, dispatcherAt("eventflow-system", "default", "http://127.0.0.1:1"), dispatcherAt("cells", "cell-2", api.URL))
			out, err := call(t, append(test.args, "--type", "lab.created", "--follow=false", "--kubeconfig", kubeconfig(t, kube.URL))...)
			if err != nil || !strings.Contains(out, "in namespace clinic-a: no subscription matches it") {
				t.Errorf("it says %s, %v", out, err)
			}
			if got != "Bearer "+test.want {
				t.Errorf("the dispatcher gets %q, want %q", got, test.want)
			}
		})
	}
}

// TestWhatToDo: an error says what to do next.
func TestWhatToDo(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	listener.Close()
	authorization := ""
	unauthorized := dispatcherAPI(t, http.StatusUnauthorized, `{"title":"The request carries no valid token","detail":"send one","status":401}`, &authorization)
	other := dispatcherAPI(t, http.StatusNotFound, `<html>`, &authorization)
	for name, test := range map[string]struct {
		dispatchers []v1alpha1.WebhookDispatcher
		args        []string
		code        int
		want        string
	}{
		"the Service is not reachable": {[]v1alpha1.WebhookDispatcher{dispatcherAt("eventflow-system", "default", closed)}, nil, 1,
			`run "kubectl -n eventflow-system port-forward service/eventflow-dispatcher-default 8080:` + strings.TrimPrefix(closed, "http://127.0.0.1:") + `", and add --server http://127.0.0.1:8080`},
		"not reachable":    {nil, []string{"--server", closed}, 1, "see whether --server is right"},
		"no token":         {nil, []string{"--server", unauthorized.URL}, 1, "send one; give a token with --token-file"},
		"not a dispatcher": {nil, []string{"--server", other.URL}, 1, "answered with 404, and no dispatcher's problem document"},
		"none":             {nil, nil, 1, "there is no WebhookDispatcher default: name one with --dispatcher"},
		"two": {[]v1alpha1.WebhookDispatcher{dispatcherAt("a", "default", closed), dispatcherAt("b", "default", closed)}, nil, 1,
			"there are 2 WebhookDispatchers with the name default: choose one with --dispatcher"},
		"not ready":         {[]v1alpha1.WebhookDispatcher{dispatcherAt("a", "default", "")}, nil, 1, "has no status.publishURL yet"},
		"no namespace":      {nil, []string{"--dispatcher", "default"}, 2, "want NAMESPACE/NAME"},
		"no such name":      {nil, []string{"remember"}, 1, "read the subscription"},
		"no URL":            {nil, []string{"--server", "127.0.0.1"}, 2, "--server: the URL must be like http://127.0.0.1:8080"},
		"no kubeconfig":     {nil, []string{"--kubeconfig", "nowhere"}, 2, "--kubeconfig=nowhere"},
		"no certificates":   {nil, []string{"--server", closed, "--ca-file", os.DevNull}, 2, "holds no certificate"},
		"no token file":     {nil, []string{"--server", closed, "--token-file", "nowhere"}, 2, "--token-file"},
		"two subscriptions": {nil, []string{"a", "b"}, 2, "name one subscription"},
		"no object":         {nil, []string{"--server", closed, "--data", os.DevNull}, 2, "holds no JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--type", "lab.created", "--follow=false", "--kubeconfig", kubeconfig(t, cluster(t, test.dispatchers...).URL)}, test.args...)
			_, err := call(t, args...)
			if code := exit.Code(err); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), userToken) {
				t.Errorf("it says %q, want one line with %q", fmt.Sprint(err), test.want)
			}
		})
	}
}

// TestTokenGoesNowhereElse: the kubeconfig's credentials go to no server that the user names unless it is on this machine, and
// a redirect is not followed.
func TestTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]bool{
		"http://127.0.0.1:8080": true, "http://localhost:8080": true, "http://[::1]:1": true,
		"http://example.com": false, "https://example.com": false, "http://127.0.0.1.example.com": false, "http://10.0.0.1": false,
	} {
		plain := http.RoundTripper(&http.Transport{})
		var config client.Config
		err := new(target).authorize(t.Context(), &config, plain, &api{base: server}, &rest.Config{BearerToken: userToken}, nil)
		if with := config.Transport; err != nil || (with != plain) != want || config.Token != nil {
			t.Errorf("%s gets the token: %v, want %v: %v", server, with != plain, want, err)
		}
	}
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(elsewhere.Close)
	redirects := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirects.Close)
	_, err := call(t, "--type", "lab.created", "--token", "t", "--server", redirects.URL, "--kubeconfig", kubeconfig(t, "https://127.0.0.1:1"))
	if err == nil || !strings.Contains(err.Error(), "answered with 307") || reached {
		t.Errorf("a redirect ends with %v, and reaches its target: %v", err, reached)
	}
}

// TestListTypes lists the 42 types, each of which --dry-run can print.
func TestListTypes(t *testing.T) {
	t.Parallel()
	out, err := call(t, "--list-types")
	if err != nil || len(strings.Fields(out)) != 42 {
		t.Errorf("got %s, %v", out, err)
	}
	for _, typ := range strings.Fields(out) {
		out, err := call(t, "--type", typ, "--dry-run")
		var e struct{ ID, Type string }
		if err != nil || json.Unmarshal([]byte(out), &e) != nil || e.Type != typ || !strings.HasPrefix(e.ID, "evt_") {
			t.Errorf("%s: %s, %v", typ, out, err)
		}
	}
}
