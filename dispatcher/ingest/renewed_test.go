package ingest

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestRenewedTokensPassAFlood: a client whose token was good has its next one reviewed at once, however many addresses
// send junk that the API server is slow to judge.
func TestRenewedTokensPassAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const takes = time.Second
		server := newAPIServer(publishA)
		server.userOf = serviceAccounts
		server.hang = func(token string) <-chan struct{} {
			done := make(chan struct{})
			if _, good := serviceAccounts(token); good || token == "" {
				close(done)
			} else {
				time.AfterFunc(takes, func() { close(done) })
			}
			return done
		}
		k := newKubernetes(t, server)
		token := func(subject string) string { return jwt(map[string]any{"iss": testIssuer, "sub": subject}) }
		if err := k.Authorize(t.Context(), "Bearer "+token("sa-0"), testSource, publishA); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for i := range 500 {
			go func() {
				for n := i; ctx.Err() == nil; n += 500 {
					_ = k.Authorize(ctx, "Bearer "+token(fmt.Sprint("junk-", n)), fmt.Sprint("203.0.113.", i%50), publishA)
					<-time.After(100 * time.Millisecond)
				}
			}()
		}
		<-time.After(5 * takes)
		for i := range 10 {
			started := time.Now()
			err := k.Authorize(t.Context(), "Bearer "+token(fmt.Sprint("sa-renewed-", i)), testSource, publishA)
			if waited := time.Since(started); err != nil || waited > 100*time.Millisecond {
				t.Errorf("renewed token %d: %v after %v", i, err, waited)
			}
			<-time.After(takes)
		}
		stop()
		synctest.Wait()
		<-time.After(reviewWait + reviewTimeout + time.Second)
	})
}
