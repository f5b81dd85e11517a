package controllers

import (
	"testing"

	"k8s.io/client-go/tools/cache"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestDispatcherRefNamesTheInstallNamespace keeps that a reference with no namespace means where the manager is.
func TestDispatcherRefNamesTheInstallNamespace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ given, want string }{
		"none":    {given: "", want: "webhooks"},
		"another": {given: "clinics", want: "clinics"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := &v1alpha1.WebhookSubscription{}
			sub.Spec.DispatcherRef.Namespace = tt.given
			for range 2 { // a transform may be applied twice
				if _, err := transform("webhooks")(sub); err != nil {
					t.Fatal(err)
				}
			}
			if got := sub.Spec.DispatcherRef.Namespace; got != tt.want {
				t.Errorf("namespace %q, want %q", got, tt.want)
			}
		})
	}
	tombstone := cache.DeletedFinalStateUnknown{Key: "a/b"}
	if got, err := transform("webhooks")(tombstone); err != nil || got != tombstone {
		t.Errorf("a tombstone became %v (%v)", got, err)
	}
}
