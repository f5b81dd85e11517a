package deliveries

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestClientExplains: an answer of the dispatcher's HTTP API is an error that the pages know.
func TestClientExplains(t *testing.T) {
	t.Parallel()
	const detail = `{"type":"x#delivery-ended","title":"It ended","status":409,"detail":"replay it"}`
	for name, test := range map[string]struct {
		status int
		body   string
		call   func(*Client) error
		want   error
	}{
		"no right to list":    {403, detail, func(c *Client) error { return second(c.List(t.Context(), "a", Query{})) }, &Forbidden{"list", group, "webhookdeliveries", "a"}},
		"no right to change":  {403, detail, func(c *Client) error { return second(c.Cancel(t.Context(), "a", "dlv_1")) }, &Forbidden{"update", group, "webhookdeliveries", "a"}},
		"no right to publish": {403, detail, func(c *Client) error { return published(t, c, `{}`) }, &Forbidden{"create", group, "webhookevents", "a"}},
		"none":                {404, detail, func(c *Client) error { return second(c.Get(t.Context(), "a", "dlv_1")) }, ErrNotFound},
		"no id":               {200, `{}`, func(c *Client) error { return second(c.Replay(t.Context(), "a", "../events")) }, ErrNotFound},
		"no namespace":        {404, detail, func(c *Client) error { return published(t, c, `{}`) }, &Refused{404, "replay it"}},
		"refused":             {409, detail, func(c *Client) error { return second(c.SendNow(t.Context(), "a", "dlv_1")) }, &Refused{409, "replay it"}},
		"busy, once":          {503, ``, func(c *Client) error { return published(t, c, `{}`) }, &Refused{503, "the dispatcher answered 503"}},
		"no JSON":             {200, `{}`, func(c *Client) error { return published(t, c, `{`) }, &Refused{400, "the data is not JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			err := test.call(clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}))
			if fmt.Sprintf("%T %v", err, err) != fmt.Sprintf("%T %v", test.want, test.want) || asked > 1 {
				t.Errorf("got %T %v after %d requests, want %T %v", err, err, asked, test.want, test.want)
			}
		})
	}
}

func published(t *testing.T, c *Client, data string) error {
	t.Helper()
	_, _, err := c.Publish(t.Context(), "a", "lab.created", []byte(data))
	return err
}

func clientOf(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(base, server.Client().Transport)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClientReplaysWhatThePageShows: the page's own length is no part of a replay of all that match.
func TestClientReplaysWhatThePageShows(t *testing.T) {
	t.Parallel()
	c := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/namespaces/a/deliveries/replay" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"replayed":3,"continue":"t"}`)
	})
	got, err := c.ReplayMany(t.Context(), "a", Query{State: Failed, Limit: 50})
	if err != nil || got != (Progress{3, "t"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestClientShowsNoAddress of a dispatcher that cannot be reached.
func TestClientShowsNoAddress(t *testing.T) {
	t.Parallel()
	c, err := NewClient(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, &http.Transport{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.List(t.Context(), "a", Query{Subscription: "s", Key: "PHI"})
	if err == nil || strings.Contains(err.Error(), "PHI") || strings.Contains(err.Error(), "http://") || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := NewClient(&url.URL{Scheme: "ftp", Host: "x"}, nil); err == nil {
		t.Error("a URL that is no dispatcher's is taken")
	}
}
