package test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	hooks "github.com/clinikapi/eventflow/api/receiver"
)

// loaded is a subscription under load, with a receiver that knows the keys that it was given and no other.
type loaded struct {
	*tenant
	receiver *hooks.Receiver
	// taken and refused count the receiver's answers, and failed the events that were not accepted.
	taken, refused, failed atomic.Int64
}

func newLoaded(t *testing.T, scheme hooks.Scheme) *loaded {
	t.Helper()
	l := &loaded{tenant: newTenant(t)}
	var err error
	l.receiver, err = hooks.New(hooks.Config{
		Secrets: []string{signingKey}, Scheme: scheme,
		On: hooks.Routes{"*": func(context.Context, hooks.Event) error { return nil }},
		Observe: func(_ context.Context, o hooks.Outcome) {
			if o.Status == http.StatusOK {
				l.taken.Add(1)
			} else {
				l.refused.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(l.receiver)
	t.Cleanup(server.Close)
	l.subscribe("hook", server.URL, `"*"`, "retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}")
	l.ready("hook")

	var publishing sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		publishing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if code, err := l.post(); err != nil || code != http.StatusAccepted {
					l.failed.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); publishing.Wait() })
	return l
}

// post publishes an event, also from another goroutine than the test's.
func (l *loaded) post() (int, error) {
	q, err := http.NewRequestWithContext(l.ctx, http.MethodPost, "http://"+system.api+"/v1/namespaces/"+l.namespace+"/events", strings.NewReader(`{"type":"lab.created","data":{}}`))
	if err != nil {
		return 0, err
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+l.token)
	response, err := apiClient.Do(q)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// knows gives the receiver its keys.
func (l *loaded) knows(secrets ...string) {
	l.Helper()
	if err := l.receiver.SetSecrets(secrets...); err != nil {
		l.Fatal(err)
	}
}

// goesOn waits for so many deliveries more, and fails if one was refused.
func (l *loaded) goesOn(step string) {
	l.Helper()
	from := l.taken.Load()
	l.eventually(func() error {
		if n := l.refused.Load(); n > 0 {
			return nil
		}
		if n := l.taken.Load() - from; n < 40 {
			return fmt.Errorf("%s: %d deliveries since", step, n)
		}
		return nil
	})
	if n := l.refused.Load(); n > 0 {
		l.Fatalf("%s: the receiver refused %d deliveries", step, n)
	}
}

// rotate runs "eventflow keys rotate", and returns what it prints.
func (l *loaded) rotate(flags ...string) (string, error) {
	args := append([]string{"keys", "rotate", "hook", "-n", l.namespace, "--kubeconfig", system.admin, "--timeout=60s"}, flags...)
	out, err := exec.CommandContext(l.ctx, system.binary, args...).CombinedOutput()
	return string(out), err
}

func (l *loaded) mustRotate(want string, flags ...string) string {
	l.Helper()
	out, err := l.rotate(flags...)
	if err != nil || !strings.Contains(out, want) {
		l.Fatalf("keys rotate %q: %v, want %q\n%s", flags, err, want, out)
	}
	return out
}

var (
	confirmation = regexp.MustCompile(`--receivers-have=(key_[a-z2-7]+)`)
	secretOfKey  = regexp.MustCompile(`Secret (hook-key-[0-9a-f]+) has`)
	publicKey    = regexp.MustCompile(`whpk_[A-Za-z0-9+/=]+`)
)

// TestRotationRefusesNothing rotates under load by the command, with a receiver that knows the old key until it is told, both until
// the rotation is over, and the new one after that. It refuses no delivery: of a shared key by either signature, from a shared key to
// a pair, and from a pair to the next.
func TestRotationRefusesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		scheme hooks.Scheme
		moves  []string // the schemes of the keys that follow
	}{
		"webhook-signature":                       {hooks.Standard, []string{"v1", ""}},
		"X-Clinik-Signature":                      {hooks.BodyOnly, []string{""}},
		"from a shared key to a pair, and onward": {hooks.Standard, []string{"v1a", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, old := newLoaded(t, test.scheme), signingKey
			l.goesOn("before")
			for _, scheme := range test.moves {
				old = l.rotateOnce(old, scheme)
			}
			if n := l.failed.Load(); n > 0 {
				t.Errorf("%d events were not accepted", n)
			}
		})
	}
}

// rotateOnce makes all steps, and returns the new key as the receiver has it.
func (l *loaded) rotateOnce(old, scheme string) string {
	l.Helper()
	var flags []string
	if scheme != "" {
		flags = []string{"--scheme=" + scheme}
	}
	out := l.mustRotate("Step 2 of 4", flags...)
	l.goesOn("the new key signs beside")
	if again := l.mustRotate("Step 2 of 4", flags...); confirmation.FindString(again) != confirmation.FindString(out) {
		l.Errorf("a second run has another key:\n%s", again)
	}
	confirm, secret := confirmation.FindString(out), secretOfKey.FindStringSubmatch(out)
	if confirm == "" || secret == nil {
		l.Fatalf("no key is named:\n%s", out)
	}
	if refusal, err := l.rotate("--receivers-have=key_aaaaaaaa"); err == nil {
		l.Errorf("another key was taken:\n%s", refusal)
	}
	fresh := publicKey.FindString(out)
	if fresh == "" {
		fresh = l.kube("get", "secret", secret[1], "-o", "go-template={{index .data \"key\" | base64decode}}")
	}
	l.knows(old, fresh)
	l.mustRotate("Step 3 of 4 is made", confirm)
	l.goesOn("the new key is the current one")
	l.mustRotate("The rotation is over", confirm)
	l.knows(fresh) // at once, as the command says
	l.goesOn("the old key has ended")
	l.mustRotate("The rotation is over", confirm) // repeated, it begins no other
	return fresh
}

// TestRotationTooEarly: the same receiver refuses deliveries as soon as the old key ends before it has the new one. So the test
// above sees what it is about.
func TestRotationTooEarly(t *testing.T) {
	t.Parallel()
	l := newLoaded(t, hooks.Standard)
	l.mustRotate("Step 2 of 4")
	l.goesOn("the new key signs beside")
	secret := l.kube("get", "webhooksubscription", "hook", "-o", "jsonpath={.spec.signing.nextSecretRef.name}")
	l.kube("patch", "webhooksubscription", "hook", "--type=merge", "-p", `{"spec":{"signing":{"secretRef":{"name":"`+secret+`","key":"key"},"nextSecretRef":null}}}`)
	l.eventually(func() error {
		if l.refused.Load() == 0 {
			return errors.New("the receiver refuses nothing")
		}
		return nil
	})
}
