package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/clinikapi/eventflow/api/client"
)

// dispatcher stands for one: it is busy at first, and has delivered what it was sent.
func dispatcher() *httptest.Server {
	busy := true
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/namespaces/clinic-a/events", func(w http.ResponseWriter, _ *http.Request) {
		if busy {
			busy = false
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, `{"id":"appt_1.created","deliveries":2}`)
	})
	mux.HandleFunc("GET /v1/namespaces/clinic-a/deliveries", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("continue") == "" {
			fmt.Fprint(w, `{"items":[{"id":"dlv_2","subscription":"billing","state":"Delivered"}],"continue":"2"}`)
			return
		}
		fmt.Fprint(w, `{"items":[{"id":"dlv_1","subscription":"reminders","state":"Failed"}],"continue":""}`)
	})
	mux.HandleFunc("POST /v1/namespaces/clinic-a/deliveries/dlv_1/replay", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"type":"https://github.com/clinikapi/eventflow/blob/main/docs/problems.md#delivery-pending",`+
			`"title":"The delivery is still on its way","status":409,"detail":"the delivery is on its way already"}`)
	})
	return httptest.NewServer(mux)
}

// A producer publishes an event, and then looks for deliveries that failed.
func Example() {
	server := dispatcher()
	defer server.Close()

	c, err := client.New(client.Config{
		URL: server.URL, // in the cluster https://… or http://eventflow-dispatcher-default.eventflow-system.svc
		// Token: client.TokenFile("/var/run/secrets/kubernetes.io/serviceaccount/token"),
		RetryFor: 20 * time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	accepted, err := c.Publish(ctx, "clinic-a", client.Event{
		ID:   "appt_1.created", // the same after a restart of this program: it is stored once
		Type: "appointment.created",
		Data: []byte(`{"resourceType":"appointment","resourceId":"appt_1"}`),
	})
	if err != nil {
		fmt.Println(err) // it may still have been stored: publish it again
		return
	}
	fmt.Println(accepted.ID, "has", accepted.Deliveries, "deliveries")

	for d, err := range c.All(ctx, "clinic-a", client.Query{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.ID, d.Subscription, d.State)
		if d.State != client.Failed {
			continue
		}
		_, err := c.Replay(ctx, "clinic-a", d.ID)
		if problem, ok := errors.AsType[*client.Problem](err); ok && problem.Kind() == client.DeliveryPending {
			fmt.Println("it is tried again already")
		}
	}
	// Output:
	// appt_1.created has 2 deliveries
	// dlv_2 billing Delivered
	// dlv_1 reminders Failed
	// it is tried again already
}
