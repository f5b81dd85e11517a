package apiserver

import (
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
)

// verbs are all that can be done. There is no delete: the namespace controller then passes these resources over.
var verbs = map[string][]string{
	"webhookdeliveries":         {"get", "list", "watch"},
	"webhookdeliveries/replay":  {"create"},
	"webhookdeliveries/cancel":  {"create"},
	"webhookdeliveries/sendnow": {"create"},
	"webhookevents":             {"get", "list"},
	"webhookevents/payload":     {"get"},
}

// resources is the discovery document of the version.
func (s *Server) resources() *metav1.APIResourceList {
	list := &metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: v1alpha1.GroupVersion.String(),
	}
	add := func(name, singular, kind string, short ...string) {
		known := verbs[name]
		if s.options.Shared && name == v1alpha1.ResourceDeliveries {
			known = []string{"get", "list"}
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, SingularName: singular, Kind: kind, Namespaced: true, Verbs: known, ShortNames: short})
	}
	add("webhookdeliveries", "webhookdelivery", "WebhookDelivery", "whd")
	add("webhookdeliveries/replay", "", "ReplayOptions")
	add("webhookdeliveries/cancel", "", "CancelOptions")
	add("webhookdeliveries/sendnow", "", "SendNowOptions")
	add("webhookevents", "webhookevent", "WebhookEvent", "whe")
	add("webhookevents/payload", "", "WebhookEventPayload")
	return list
}

func group() metav1.APIGroup {
	version := metav1.GroupVersionForDiscovery{GroupVersion: v1alpha1.GroupVersion.String(), Version: v1alpha1.GroupVersion.Version}
	return metav1.APIGroup{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: v1alpha1.GroupVersion.Group,
		Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version,
	}
}

// discover answers what says which resources there are, and whether this server lives. It needs neither rights nor a store.
func (s *Server) discover(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/livez", "/readyz", "/healthz":
		_, _ = w.Write([]byte("ok\n"))
	case "/apis":
		write(w, http.StatusOK, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{group()}})
	case groupPath:
		write(w, http.StatusOK, group())
	case versionPath:
		write(w, http.StatusOK, s.resources())
	case "/openapi/v2":
		write(w, http.StatusOK, map[string]any{"swagger": "2.0", "info": openAPIInfo, "paths": map[string]any{}})
	case "/openapi/v3":
		write(w, http.StatusOK, map[string]any{"paths": map[string]any{strings.TrimPrefix(versionPath, "/"): map[string]string{"serverRelativeURL": "/openapi/v3" + versionPath}}})
	case "/openapi/v3" + versionPath:
		write(w, http.StatusOK, map[string]any{"openapi": "3.0.0", "info": openAPIInfo, "paths": map[string]any{}})
	default:
		return false
	}
	return true
}

var openAPIInfo = map[string]string{"title": "Event Flow deliveries", "version": v1alpha1.GroupVersion.Version}
