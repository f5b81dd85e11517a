package ingest

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// jwt returns a token of the shape that service accounts have, with the claims given.
func jwt(claims map[string]any) string {
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err) // of maps of texts and numbers
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + encode(text) + "." + encode([]byte("signature"))
}

const testIssuer = "https://kubernetes.default.svc"

// serviceAccounts makes JWTs of testIssuer with a subject "sa-…" good, and all else bad.
func serviceAccounts(token string) (string, bool) {
	if name, ok := strings.CutPrefix(token, "good-"); ok {
		return name, true
	}
	c, ok := parseJWT(token)
	if !ok || c.Issuer != testIssuer {
		return "", false
	}
	var subject struct {
		Sub string `json:"sub"`
	}
	_ = decodePart(strings.Split(token, ".")[1], &subject)
	return "system:serviceaccount:clinic-a:" + subject.Sub, strings.HasPrefix(subject.Sub, "sa-")
}

func TestKubernetesCaches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := newKubernetes(t, server)
		ask := func(token string) error { return k.Authorize(t.Context(), "Bearer "+token, testSource, publishA) }
		for range 10 {
			if err := ask("good-ehr"); err != nil {
				t.Fatal(err)
			}
		}
		if tokens, accesses := server.tokenReviews.Load(), server.accessCount.Load(); tokens != 1 || accesses != 1 {
			t.Errorf("%d and %d reviews for one question", tokens, accesses)
		}
		<-time.After(allowedTTL)
		if err := ask("good-ehr"); err != nil {
			t.Fatal(err)
		}
		if tokens, accesses := server.tokenReviews.Load(), server.accessCount.Load(); tokens != 2 || accesses != 2 {
			t.Errorf("%d and %d reviews, want both again after %v", tokens, accesses, allowedTTL)
		}

		// A denial is forgotten sooner.
		<-time.After(allowedTTL)
		server.set(func() { server.allow = nil })
		if _, ok := errors.AsType[*ForbiddenError](ask("good-ehr")); !ok {
			t.Error("revoked, but not denied")
		}
		server.set(func() { server.allow = map[Access]bool{publishA: true} })
		if _, ok := errors.AsType[*ForbiddenError](ask("good-ehr")); !ok {
			t.Error("a denial was not kept")
		}
		<-time.After(deniedTTL + time.Millisecond)
		if err := ask("good-ehr"); err != nil {
			t.Errorf("granted again: %v", err)
		}
	})
}

// TestOutageGrace: a yes holds for the grace while the API server cannot be reached, and not a moment longer.
func TestOutageGrace(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{0, time.Minute, MaxOutageGrace} {
		t.Run(grace.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newAPIServer(publishA)
				k := newKubernetes(t, server, func(o *KubernetesOptions) { o.OutageGrace = grace })
				ask := func(token string) error { return k.Authorize(t.Context(), "Bearer "+token, testSource, publishA) }
				if err := ask("good-ehr"); err != nil {
					t.Fatal(err)
				}
				server.set(func() { server.down = errRefused })
				if err := ask("good-other"); err == nil || errors.Is(err, ErrUnauthenticated) {
					t.Errorf("a token that was never seen: %v", err)
				}
				started := time.Now()
				for time.Since(started) < max(grace, allowedTTL)-time.Second {
					if err := ask("good-ehr"); err != nil {
						t.Fatalf("after %v of a grace of %v: %v", time.Since(started), grace, err)
					}
					<-time.After(time.Second)
				}
				<-time.After(2 * time.Second)
				if err := ask("good-ehr"); err == nil || errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrBusy) {
					t.Errorf("after the grace of %v: %v", grace, err)
				}
				server.set(func() { server.down = nil })
				<-time.After(2 * probeInterval)
				if err := ask("good-ehr"); err != nil {
					t.Errorf("the API server is back: %v", err)
				}
			})
		})
	}
	for _, grace := range []time.Duration{-1, MaxOutageGrace + 1} {
		if _, err := NewKubernetes(newAPIServer().reviews(), KubernetesOptions{OutageGrace: grace}); err == nil {
			t.Errorf("a grace of %v is taken", grace)
		}
	}
}

// TestTheGraceEndsWithANo: a deleted service account stops to publish at the API server's first word.
func TestTheGraceEndsWithANo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		deleted := false
		server.userOf = func(string) (string, bool) { return "ehr", !deleted }
		k := newKubernetes(t, server)
		ask := func() error { return k.Authorize(t.Context(), "Bearer opaque", testSource, publishA) }
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		server.set(func() { server.down = errRefused })
		<-time.After(allowedTTL)
		if err := ask(); err != nil {
			t.Fatalf("within the grace: %v", err)
		}
		server.set(func() { server.down, deleted = nil, true })
		<-time.After(prolongedTTL)
		if err := ask(); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("deleted: got %v", err)
		}
		server.set(func() { server.down = errRefused })
		<-time.After(deniedTTL)
		if err := ask(); err == nil {
			t.Error("the grace goes on after a no")
		}
		server.set(func() { server.down, deleted, server.allow = nil, false, nil })
		<-time.After(deniedTTL)
		if _, ok := errors.AsType[*ForbiddenError](ask()); !ok {
			t.Error("a grant outlived the token that it was for")
		}
	})
}

// TestAFloodOfBadTokens: what was known goes on without a wait, a fresh good token passes, and a deleted one does not,
// while junk from many addresses takes all that the unknown may have.
func TestAFloodOfBadTokens(t *testing.T) {
	t.Parallel()
	for name, junk := range map[string]func(i int) string{
		"opaque":       func(i int) string { return fmt.Sprint("junk-", i) },
		"of an issuer": func(i int) string { return jwt(map[string]any{"iss": testIssuer, "sub": fmt.Sprint("junk-", i)}) },
		"of another":   func(i int) string { return jwt(map[string]any{"iss": "https://evil", "sub": fmt.Sprint(i)}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { floodOfBadTokens(t, junk) })
		})
	}
}

func floodOfBadTokens(t *testing.T, junk func(i int) string) {
	server := newAPIServer(publishA)
	deleted := false
	server.userOf = func(token string) (string, bool) {
		if token == "good-deleted" && deleted {
			return "", false
		}
		return serviceAccounts(token)
	}
	slow := func(string) <-chan struct{} { // reviews take 20 ms each
		done := make(chan struct{})
		time.AfterFunc(20*time.Millisecond, func() { close(done) })
		return done
	}
	server.hang = slow
	k := newKubernetes(t, server)
	ask := func(token, source string) error {
		return k.Authorize(t.Context(), "Bearer "+token, source, publishA)
	}
	known := jwt(map[string]any{"iss": testIssuer, "sub": "sa-known"})
	for _, token := range []string{known, "good-deleted"} {
		if err := ask(token, testSource); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	busy := make(chan error, 1)
	for i := range 1800 {
		go func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := k.Authorize(ctx, "Bearer "+junk(i+n*1800), fmt.Sprint("203.0.113.", i%50), publishA)
				if err != nil && !errors.Is(err, ErrUnauthenticated) && ctx.Err() == nil {
					select {
					case busy <- err:
					default:
					}
				}
				<-time.After(time.Second)
			}
		}()
	}
	<-time.After(allowedTTL)
	if err := <-busy; !errors.Is(err, ErrBusy) {
		t.Errorf("junk that cannot be asked about: got %v, want ErrBusy", err)
	}
	for range 3 { // each is a review again
		started := time.Now()
		if err := ask(known, testSource); err != nil || time.Since(started) > 50*time.Millisecond {
			t.Errorf("a known token: %v after %v", err, time.Since(started))
		}
		<-time.After(allowedTTL)
	}
	for i := range 5 {
		fresh := jwt(map[string]any{"iss": testIssuer, "sub": fmt.Sprint("sa-fresh-", i)})
		started := time.Now()
		if err := ask(fresh, testSource); err != nil || time.Since(started) > 2*time.Second {
			t.Errorf("a fresh good token: %v after %v", err, time.Since(started))
		}
	}
	server.set(func() { deleted = true })
	<-time.After(allowedTTL)
	if err := ask("good-deleted", testSource); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a deleted account in the flood: got %v", err)
	}
	if k.reach.isLost() {
		t.Error("the flood counts as an outage")
	}
	stop()
	synctest.Wait()
	<-time.After(reviewWait + reviewTimeout + time.Second) // reviews that nobody waits for any more
}

// TestOwnLimitsAreNoOutage: neither a limit of this dispatcher nor a client that leaves lets an old yes hold.
func TestOwnLimitsAreNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := newKubernetes(t, server)
		if err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); err != nil {
			t.Fatal(err)
		}
		<-time.After(allowedTTL)
		for i := range 64 { // all places are taken by others
			if err := k.lanes.known.Acquire(t.Context(), fmt.Sprint(i), 1); err != nil {
				t.Fatal(err)
			}
		}
		started := time.Now()
		err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA)
		if !errors.Is(err, ErrBusy) || time.Since(started) != reviewWait {
			t.Errorf("got %v after %v, want ErrBusy", err, time.Since(started))
		}
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- k.Authorize(ctx, "Bearer good-ehr", testSource, publishA) }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
		if known, _ := k.tokens.get(newTokenHash("good-ehr")); known.standing(time.Now(), time.Hour) == held || k.reach.isLost() {
			t.Error("the yes was prolonged")
		}
		for i := range 64 {
			k.lanes.known.Release(fmt.Sprint(i), 1)
		}
		if err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); err != nil {
			t.Errorf("places are free again: %v", err)
		}
	})
}

// TestManyTokensOutliveAHangingAPIServer: the grace holds for all, not only for as many as are asked about at once.
func TestManyTokensOutliveAHangingAPIServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := newKubernetes(t, server)
		const tokens = 1000
		round := func() (failed int) {
			results := make(chan error, tokens)
			for i := range tokens {
				go func() {
					results <- k.Authorize(t.Context(), fmt.Sprint("Bearer good-", i), testSource, publishA)
				}()
			}
			for range tokens {
				if err := <-results; err != nil {
					failed++
				}
			}
			return failed
		}
		for i := range tokens {
			if err := k.Authorize(t.Context(), fmt.Sprint("Bearer good-", i), testSource, publishA); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Second / 10) // below the rate of tokens that were never seen
		}
		never := make(chan struct{})
		server.set(func() { server.hang = func(string) <-chan struct{} { return never } })
		for range 4 {
			<-time.After(allowedTTL)
			started := time.Now()
			if failed := round(); failed > 0 {
				t.Fatalf("%d of %d known tokens fail while the API server hangs", failed, tokens)
			}
			if took := time.Since(started); took > reviewTimeout+reviewWait {
				t.Errorf("a round took %v", took)
			}
		}
		close(never)
		<-time.After(reviewTimeout)
	})
}

func TestReplies(t *testing.T) {
	t.Parallel()
	resource := schema.GroupResource{Resource: "tokenreviews"}
	for name, tc := range map[string]struct {
		err  error
		want reply
	}{
		"refused":       {errRefused, unreachable},
		"timeout":       {fmt.Errorf("post: %w", context.DeadlineExceeded), unreachable},
		"cut":           {&url.Error{Op: "Post", Err: io.ErrUnexpectedEOF}, unreachable},
		"429":           {apierrors.NewTooManyRequests("slow down", 1), unreachable},
		"500":           {apierrors.NewInternalError(io.EOF), unreachable},
		"503":           {apierrors.NewServiceUnavailable("stopping"), unreachable},
		"504":           {apierrors.NewTimeoutError("etcd", 1), unreachable},
		"401":           {apierrors.NewUnauthorized("no"), failed},
		"403":           {apierrors.NewForbidden(resource, "", io.EOF), failed},
		"another's":     {&url.Error{Op: "Post", Err: &tls.CertificateVerificationError{Err: io.EOF}}, failed},
		"anything else": {errors.New("client rate limiter Wait returned an error"), failed},
	} {
		if got := replyTo(tc.err); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
}

// TestImpossibleTokens are refused without asking; others are asked about, each in its lane.
func TestImpossibleTokens(t *testing.T) {
	t.Parallel()
	now := time.Now().Unix()
	for name, tc := range map[string]struct {
		claims    map[string]any
		token     string // instead
		audiences []string
		issuers   []string
		wantAsked bool
	}{
		"good":                    {claims: map[string]any{"iss": testIssuer, "exp": now + 60, "nbf": now, "aud": []string{testIssuer}}, wantAsked: true},
		"legacy":                  {claims: map[string]any{"iss": "kubernetes/serviceaccount"}, wantAsked: true},
		"expired":                 {claims: map[string]any{"iss": testIssuer, "exp": now - 3600}},
		"expired a moment ago":    {claims: map[string]any{"iss": testIssuer, "exp": now - 1}, wantAsked: true},
		"of next year":            {claims: map[string]any{"iss": testIssuer, "nbf": now + 365*86400}},
		"of an issuer not listed": {claims: map[string]any{"iss": "https://evil"}, issuers: []string{testIssuer}},
		"of a listed issuer":      {claims: map[string]any{"iss": testIssuer}, issuers: []string{testIssuer}, wantAsked: true},
		"of an unseen issuer":     {claims: map[string]any{"iss": "https://idp.example.com"}, wantAsked: true},
		"for another audience":    {claims: map[string]any{"iss": testIssuer, "aud": "vault"}, audiences: []string{"eventflow"}},
		"for one of many":         {claims: map[string]any{"iss": testIssuer, "aud": []string{"vault", "eventflow"}}, audiences: []string{"eventflow"}, wantAsked: true},
		"for no audience":         {claims: map[string]any{"iss": testIssuer}, audiences: []string{"eventflow"}, wantAsked: true},
		"opaque":                  {token: "abcdef.0123456789abcdef", wantAsked: true},
		"opaque, three parts":     {token: "a.b.c", wantAsked: true},
		"opaque, claims odd":      {token: jwt(map[string]any{"exp": "tomorrow"}), wantAsked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(publishA)
			server.userOf = func(string) (string, bool) { return "", false }
			k := newKubernetes(t, server, func(o *KubernetesOptions) { o.Audiences, o.Issuers = tc.audiences, tc.issuers })
			k.issuers.add("https://seen.example.com")
			token := tc.token
			if token == "" {
				token = jwt(tc.claims)
			}
			for range 3 {
				if err := k.Authorize(t.Context(), "Bearer "+token, testSource, publishA); !errors.Is(err, ErrUnauthenticated) {
					t.Fatalf("got %v", err)
				}
			}
			if asked := server.tokenReviews.Load(); asked > 1 || (asked == 1) != tc.wantAsked {
				t.Errorf("the API server was asked %d times, want once: %v", asked, tc.wantAsked)
			}
		})
	}
}

// TestJunkForgetsNothing: no number of bad tokens, and no tenant with many good ones, pushes out what is known of others.
func TestJunkForgetsNothing(t *testing.T) {
	t.Parallel()
	server := newAPIServer(publishA)
	k := newKubernetes(t, server)
	if err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxKnownTokens {
		k.refusals.Add(newTokenHash(fmt.Sprint("junk-", i)), nil, time.Minute)
		k.tokens.put(newTokenHash(fmt.Sprint("greedy-", i)), "greedy", knownToken{})
		k.grants.put(grant{token: newTokenHash(fmt.Sprint("greedy-", i))}, "greedy", knownGrant{})
	}
	before := server.tokenReviews.Load() + server.accessCount.Load()
	if err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); err != nil {
		t.Fatal(err)
	}
	if after := server.tokenReviews.Load() + server.accessCount.Load(); after != before {
		t.Error("what was known was forgotten")
	}
	if got := len(k.refusals.Keys()); got > maxRefusedTokens {
		t.Errorf("%d bad tokens are kept", got)
	}
	if got := k.tokens.len(); got > maxKnownTokens {
		t.Errorf("%d good tokens are kept", got)
	}
}

func TestKubernetesAsksOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		opened := make(chan struct{})
		server.hang = func(string) <-chan struct{} { return opened }
		k := newKubernetes(t, server)
		first, leave := context.WithCancel(t.Context())
		results := make(chan error, 100)
		go func() { results <- k.Authorize(first, "Bearer good-ehr", testSource, publishA) }()
		synctest.Wait()
		for range cap(results) - 1 {
			go func() { results <- k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA) }()
		}
		synctest.Wait()
		leave() // the first to ask does not wait for the answer
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("the client that left got %v", err)
		}
		close(opened)
		for range cap(results) - 1 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if tokens, accesses := server.tokenReviews.Load(), server.accessCount.Load(); tokens != 1 || accesses != 1 {
			t.Errorf("%d and %d reviews for one question", tokens, accesses)
		}
	})
}

func TestKubernetesReviewTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		never := make(chan struct{})
		server.hang = func(string) <-chan struct{} { return never }
		k := newKubernetes(t, server)
		started := time.Now()
		err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA)
		if err == nil || errors.Is(err, ErrBusy) || time.Since(started) != reviewTimeout {
			t.Errorf("got %v after %v", err, time.Since(started))
		}
	})
}
