package dispatcher

import (
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
)

// TestNamespacesThatAreGone: a namespace is gone if there is none of its name, or another; not while the API server cannot
// say.
func TestNamespacesThatAreGone(t *testing.T) {
	t.Parallel()
	server := &namespaceServer{}
	d := &dispatcher{
		Options: Options{Routes: routesKubernetes}, namespaces: newNamespaces(server),
		encryption: &encryption{keeper: &seedstest.Memory{}},
	}
	uid, known, err := d.namespaces.identify(t.Context(), "real-a", "192.0.2.1:1")
	if err != nil || !known || d.namespaceOf(uid) != "real-a" || d.namespaceOf("uid-9") != "" || d.namespaceOf("") != "" {
		t.Errorf("%s, %t, %v: the name is %q", uid, known, err, d.namespaceOf(uid))
	}
	gone := d.newShredder(nil).Gone
	check := func(what, namespace string, want, wantErr bool) {
		t.Helper()
		if got, err := gone(t.Context(), namespace, uid); got != want || (err != nil) != wantErr {
			t.Errorf("%s: %t, %v", what, got, err)
		}
	}
	check("it is there", "real-a", false, false)
	check("there is none", "made-up", true, false)
	server.down.Store(true)
	check("an outage", "made-up", false, true)
	server.down.Store(false)
	server.made.Add(1)
	check("it was made again", "real-a", true, false)
}
