package status

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestListReadsPages: ten thousand subscriptions are listed with ten requests, and a page that is cut off is an error.
func TestListReadsPages(t *testing.T) {
	t.Parallel()
	const all = 10_000
	requests, cut := 0, false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		var from, limit int
		_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
		_, _ = fmt.Sscan(r.URL.Query().Get("limit"), &limit)
		items := make([]string, 0, limit)
		for i := from; i < min(from+limit, all); i++ {
			items = append(items, fmt.Sprintf(`{"metadata":{"name":"x","uid":"%d"},"spec":{"events":["*"]},"status":{"programmedGeneration":%d}}`, i, i+1))
		}
		next := ""
		if from+limit < all {
			next = fmt.Sprint(from + limit)
		}
		body := fmt.Sprintf(`{"apiVersion":"v1","items":[%s],"kind":"List","metadata":{"continue":%q}}`, strings.Join(items, ","), next)
		w.Header().Set("Content-Type", "application/json")
		if cut {
			body = body[:len(body)-1]
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	client, err := NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int64)
	each := func(identity string, status v1alpha1.WebhookSubscriptionStatus) {
		seen[identity] = status.ProgrammedGeneration
	}
	if err := client.List(t.Context(), each); err != nil {
		t.Fatal(err)
	}
	if len(seen) != all || seen["9999"] != all || requests != 10 {
		t.Errorf("%d subscriptions with %d requests, the last of generation %d", len(seen), requests, seen["9999"])
	}
	if cut = true; client.List(t.Context(), each) == nil {
		t.Error("a page that is cut off is no error")
	}
}
