package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func resourceOf(name string) schema.GroupResource {
	return schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: name}
}

func unauthorized() error {
	return apierrors.NewUnauthorized("the request does not come from kube-apiserver's front proxy")
}

func pathNotFound() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "there is nothing at this path", 0, true)
}

func methodNotAllowed(c *call) error {
	verb := c.Verb
	if c.Namespace == "" {
		verb += " in all namespaces"
	}
	return apierrors.NewMethodNotSupported(resourceOf(c.Resource), verb)
}

func notAcceptable() error {
	return apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "get", schema.GroupResource{}, "", "only application/json, and a Table of meta.k8s.io/v1 as JSON, can be had", 0, true)
}

func invalid(c *call, at, detail string) error {
	kind := schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "WebhookDelivery"}
	if c.Resource == v1alpha1.ResourceEvents {
		kind.Kind = "WebhookEvent"
	}
	return apierrors.NewInvalid(kind, c.Name, field.ErrorList{field.Forbidden(field.NewPath(at), detail)})
}

func badRequest(detail string) error { return apierrors.NewBadRequest(detail) }

func expired() error {
	return apierrors.NewResourceExpired("the changes since this resourceVersion are not kept any more: list again")
}

// denied says that the user may not, or that it could not be found out.
func denied(c *call, err error) error {
	switch {
	case errors.Is(err, ErrForbidden):
		resource := resourceOf(c.Resource)
		if c.Subresource != "" {
			resource.Resource += "/" + c.Subresource
		}
		return apierrors.NewForbidden(resource, c.Name, errors.New("no rule allows "+c.Verb+" in this namespace"))
	case errors.Is(err, ErrBusy):
		return apierrors.NewTooManyRequests(err.Error(), 1)
	}
	return apierrors.NewServiceUnavailable("the Kubernetes API server could not be asked whether this is allowed")
}

// statusOf is what an error of query's or of the store's says in Kubernetes' words.
func statusOf(c *call, err error) error {
	if refused, ok := errors.AsType[*query.InvalidError](err); ok {
		return badRequest(refused.Detail)
	}
	resource := resourceOf(c.Resource)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(resource, c.Name)
	case errors.Is(err, store.ErrStillPending):
		return apierrors.NewConflict(resource, c.Name, errors.New("the delivery is on its way already; replay it once it is Delivered, Failed or Cancelled"))
	case errors.Is(err, store.ErrNotPending):
		return apierrors.NewConflict(resource, c.Name, errors.New("the delivery has ended, or was not planned; a replay delivers it again"))
	case errors.Is(err, query.ErrExpired):
		return expired()
	case errors.Is(err, query.ErrTooManyWatchers):
		return apierrors.NewTooManyRequests("as many watch as may", 30)
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrReadOnly), errors.Is(err, store.ErrClosed):
		return apierrors.NewServiceUnavailable(err.Error())
	}
	return err
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if !errors.Is(err, context.Canceled) {
			s.options.Logger.Error(err, "A request of the deliveries API failed", "method", r.Method)
		}
		status = apierrors.NewServiceUnavailable("the dispatcher could not do this now; try again")
	}
	answer := statusObject(status)
	if answer.Details != nil && answer.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(answer.Details.RetryAfterSeconds)))
	}
	write(w, int(answer.Code), answer)
}

// statusObject is the object that says an error.
func statusObject(of apierrors.APIStatus) *metav1.Status {
	answer := of.Status()
	answer.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &answer
}

// write answers with an object as JSON.
func write(w http.ResponseWriter, code int, object any) {
	body, err := json.Marshal(object)
	if err != nil { // not for objects of this package
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client is gone if it fails
}
