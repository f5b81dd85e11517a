package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

// How reviews are made and kept. What was allowed may have been revoked since, so it is kept for seconds only; what was
// denied is often granted a moment later.
const (
	allowedTTL       = 10 * time.Second
	deniedTTL        = 2 * time.Second
	outageTTL        = 5 * time.Minute // of what was allowed, while the API server cannot be asked
	reviewTimeout    = 5 * time.Second
	maxReviews       = 64 // at once: a flood of bad tokens must not become one at the API server
	maxCachedReviews = 4096
	maxTokenLength   = 16 << 10
)

// Kubernetes is the Authorizer that asks the API server: a TokenReview says whose token it is, and a
// SubjectAccessReview whether that user has the access. Each answer is kept for up to 10 s, by a hash of the token. While
// the API server cannot be asked, whom it allowed within the last 5 minutes goes on, so that a short outage of the
// control plane does not stop producers; nothing else passes.
type Kubernetes struct {
	client    kubernetes.Interface
	audiences []string
	// users and grants hold one answer for each key, at most maxCachedReviews.
	users   *cache.LRUExpireCache // tokenHash → answer[*authenticationv1.UserInfo], nil if the token is not valid
	grants  *cache.LRUExpireCache // grant → answer[bool]
	flights singleflight.Group
	slots   *semaphore.Weighted
}

// tokenHash stands for a token, so that none is kept.
type tokenHash [sha256.Size]byte

// grant is a question that a SubjectAccessReview answers.
type grant struct {
	token  tokenHash
	access Access
}

// answer is a review's, until when it holds without asking again, and until when it holds at all.
type answer[T any] struct {
	value        T
	fresh, until time.Time
}

// keep keeps an answer that was given now.
func keep[T any](in *cache.LRUExpireCache, key any, value T, allowed bool) {
	now := time.Now()
	if allowed {
		in.Add(key, answer[T]{value, now.Add(allowedTTL), now.Add(outageTTL)}, outageTTL)
	} else {
		in.Add(key, answer[T]{value, now.Add(deniedTTL), now.Add(deniedTTL)}, deniedTTL)
	}
}

// prolong lets an answer hold for a moment without asking again, because asking failed: not each request is to wait for
// that.
func prolong[T any](in *cache.LRUExpireCache, key any) {
	if found, ok := in.Get(key); ok {
		a, now := found.(answer[T]), time.Now()
		a.fresh = now.Add(min(allowedTTL, a.until.Sub(now)))
		in.Add(key, a, a.until.Sub(now))
	}
}

// cached returns the answer that was kept, whether there is one, and whether it holds without asking again.
func cached[T any](in *cache.LRUExpireCache, key any) (value T, kept, fresh bool) {
	if found, ok := in.Get(key); ok {
		a := found.(answer[T])
		return a.value, true, time.Now().Before(a.fresh)
	}
	return value, false, false
}

// NewKubernetes returns an Authorizer that asks client. Tokens have to be meant for one of audiences, or for the API
// server itself if there are none.
func NewKubernetes(client kubernetes.Interface, audiences ...string) *Kubernetes {
	return &Kubernetes{
		client:    client,
		audiences: audiences,
		users:     cache.NewLRUExpireCache(maxCachedReviews),
		grants:    cache.NewLRUExpireCache(maxCachedReviews),
		slots:     semaphore.NewWeighted(maxReviews),
	}
}

// Authorize asks first whose token it is, and then whether that user has access; see Authorizer.
func (k *Kubernetes) Authorize(ctx context.Context, authorization string, access Access) error {
	token, ok := bearerToken(authorization)
	if !ok {
		return ErrUnauthenticated
	}
	hash := tokenHash(sha256.Sum256([]byte(token)))
	user, err := k.authenticate(ctx, hash, token)
	if err != nil {
		return err
	}
	if user == nil {
		return ErrUnauthenticated
	}
	allowed, err := k.allowed(ctx, grant{hash, access}, user)
	if err != nil {
		return err
	}
	if !allowed {
		return &ForbiddenError{User: user.Username, Access: access}
	}
	return nil
}

// bearerToken returns the token of an Authorization header (RFC 6750, section 2.1).
func bearerToken(authorization string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(authorization, " ")
	token = strings.Trim(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxTokenLength {
		return "", false
	}
	visible := strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
	return token, visible
}

// authenticate returns the token's user, nil if it is not valid.
func (k *Kubernetes) authenticate(ctx context.Context, hash tokenHash, token string) (*authenticationv1.UserInfo, error) {
	known, kept, fresh := cached[*authenticationv1.UserInfo](k.users, hash)
	if fresh {
		return known, nil
	}
	result, err := k.once(ctx, "token "+string(hash[:]), func(ctx context.Context) (any, error) {
		user, err := k.reviewToken(ctx, token)
		if err != nil {
			return nil, err
		}
		keep(k.users, hash, user, user != nil)
		return user, nil
	})
	if err != nil && kept {
		prolong[*authenticationv1.UserInfo](k.users, hash)
		return known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("review the token: %w", err)
	}
	return result.(*authenticationv1.UserInfo), nil
}

func (k *Kubernetes) reviewToken(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	review, err := k.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: k.audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	status := &review.Status
	if !status.Authenticated || status.User.Username == "" {
		return nil, nil
	}
	// An authenticator that knows nothing of audiences leaves them out, and has not checked them.
	meant := slices.ContainsFunc(status.Audiences, func(audience string) bool { return slices.Contains(k.audiences, audience) })
	if len(k.audiences) > 0 && !meant {
		return nil, nil
	}
	return &status.User, nil
}

// allowed tells whether user has the access that g names.
func (k *Kubernetes) allowed(ctx context.Context, g grant, user *authenticationv1.UserInfo) (bool, error) {
	known, kept, fresh := cached[bool](k.grants, g)
	if fresh {
		return known, nil
	}
	key := strings.Join([]string{"access", string(g.token[:]), g.access.Verb, g.access.Resource, g.access.Namespace}, " ")
	result, err := k.once(ctx, key, func(ctx context.Context) (any, error) {
		allowed, err := k.reviewAccess(ctx, g.access, user)
		if err != nil {
			return nil, err
		}
		keep(k.grants, g, allowed, allowed)
		return allowed, nil
	})
	if err != nil && kept {
		prolong[bool](k.grants, g)
		return known, nil
	}
	if err != nil {
		return false, fmt.Errorf("review the access: %w", err)
	}
	return result.(bool), nil
}

func (k *Kubernetes) reviewAccess(ctx context.Context, access Access, user *authenticationv1.UserInfo) (bool, error) {
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, values := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := k.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: apiGroup, Resource: access.Resource, Verb: access.Verb, Namespace: access.Namespace,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}

// once runs review once for all that ask the same at the same time. It goes on when the first of them leaves, for it
// answers the others, too.
func (k *Kubernetes) once(ctx context.Context, key string, review func(context.Context) (any, error)) (any, error) {
	result := k.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		if err := k.slots.Acquire(ctx, 1); err != nil {
			return nil, errors.New("too many reviews are waiting for the API server")
		}
		defer k.slots.Release(1)
		return review(ctx)
	})
	select {
	case r := <-result:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
