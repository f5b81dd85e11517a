package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/clinikapi/eventflow/dispatcher/kube"
)

// What is remembered, and of what size a token may be.
const (
	maxKnownTokens   = 4096  // by tenant, as many as there is room for more
	maxKnownGrants   = 16384 // as above
	maxDenials       = 4096  // as above
	maxRefusedTokens = 4096
	maxTokenLength   = 12 << 10
	maxProvenSources = 4096
	// provenTTL is how long an address counts as proven after a token from there was reviewed and good: longer than the
	// lives of most tokens, which producers renew from the same address.
	provenTTL = time.Hour
	// MaxOutageGrace is the longest outage grace.
	MaxOutageGrace = 5 * time.Minute
)

// KubernetesOptions are the settings of a Kubernetes.
type KubernetesOptions struct {
	// Audiences are those of which a token has to be meant for one; without any, it is the API server itself.
	Audiences []string
	// Issuers, if there are any, are those of all JSON Web Tokens that the cluster takes. Others are refused unasked.
	Issuers []string
	// OutageGrace is how long the API server's last yes holds while it cannot be reached: 0 to MaxOutageGrace. With 0 no
	// yes holds for longer than 10 s.
	OutageGrace time.Duration
	// CurrentGrace, if it is set, returns the outage grace of now, in place of OutageGrace.
	CurrentGrace func() time.Duration
	// Registerer gets the metrics; it may be nil.
	Registerer prometheus.Registerer
}

// Kubernetes is the Authorizer that asks the API server: a TokenReview says whose token it is, and a
// SubjectAccessReview whether that user has the access. A yes is kept for 10 s and a no for 2 s, by a hash of the token.
// While the API server cannot be reached, what it allowed within the outage grace goes on, so that a short outage of the
// control plane does not stop producers; nothing else passes. A no ends this at once.
//
// What is known is reviewed apart from what is not, so that a flood of bad tokens delays no good one; and tokens that
// cannot be valid are refused without asking.
type Kubernetes struct {
	reviews kube.Reviews
	options KubernetesOptions
	// tokens and grants were good, denials were not granted, refusals were no good tokens.
	tokens   *fairCache[tokenHash, knownToken]
	grants   *fairCache[grant, knownGrant]
	denials  *fairCache[grant, denial]
	refusals *cache.LRUExpireCache // of tokenHash
	sources  *cache.LRUExpireCache // addresses with a token that was good
	issuers  issuers
	flights  singleflight.Group
	lanes    lanes
	reach    reach
	metrics  *reviewMetrics
}

// tokenHash stands for a token, so that none is kept.
type tokenHash [sha256.Size]byte

func newTokenHash(token string) tokenHash { return sha256.Sum256([]byte(token)) }

// grant is a question that a SubjectAccessReview answers.
type grant struct {
	token  tokenHash
	access Access
}

// knownToken is whose token it is. The user's address stands for the session: once the API server says no to the token,
// or says another user, no grant of the old one holds.
type knownToken struct {
	life
	user *authenticationv1.UserInfo
}

// knownGrant is a grant to a session.
type knownGrant struct {
	life
	user *authenticationv1.UserInfo
}

// denial is a grant that a session does not have.
type denial struct {
	until time.Time
	user  *authenticationv1.UserInfo
}

// NewKubernetes returns an Authorizer that asks by reviews, whose client must have no rate limiter: the limits are here, where they
// are told from an outage. It fails if an option is not valid or the metrics are registered already.
func NewKubernetes(reviews kube.Reviews, options KubernetesOptions) (*Kubernetes, error) {
	if options.OutageGrace < 0 || options.OutageGrace > MaxOutageGrace {
		return nil, fmt.Errorf("the outage grace is %v: want 0 to %v", options.OutageGrace, MaxOutageGrace)
	}
	k := &Kubernetes{
		reviews:  reviews,
		options:  options,
		tokens:   newFairCache[tokenHash, knownToken](maxKnownTokens),
		grants:   newFairCache[grant, knownGrant](maxKnownGrants),
		denials:  newFairCache[grant, denial](maxDenials),
		refusals: cache.NewLRUExpireCache(maxRefusedTokens),
		sources:  cache.NewLRUExpireCache(maxProvenSources),
		lanes:    newLanes(),
	}
	var err error
	if k.metrics, err = newReviewMetrics(options.Registerer, &k.lanes); err != nil {
		return nil, fmt.Errorf("register the metrics of reviews: %w", err)
	}
	return k, nil
}

// outageGrace is that of now.
func (k *Kubernetes) outageGrace() time.Duration {
	if k.options.CurrentGrace != nil {
		return k.options.CurrentGrace()
	}
	return k.options.OutageGrace
}

// Authorize asks first whose token it is, and then whether that user has access; see Authorizer.
func (k *Kubernetes) Authorize(ctx context.Context, authorization, source string, access Access) error {
	_, err := k.Identify(ctx, authorization, source, access)
	return err
}

// Identify is Authorize, and returns the user as well once it is known.
func (k *Kubernetes) Identify(ctx context.Context, authorization, source string, access Access) (*authenticationv1.UserInfo, error) {
	token, ok := bearerToken(authorization)
	if !ok {
		return nil, ErrUnauthenticated
	}
	hash := newTokenHash(token)
	user, err := k.authenticate(ctx, hash, token, source)
	if err != nil {
		return nil, err
	}
	return user, k.permit(ctx, grant{hash, access}, user)
}

// AuthorizeUser returns nil if a user that was authenticated elsewhere may have access. It shares the answers, and the limits
// of asking, with Authorize: a user's grants are kept as those of a token are. Errors are those of Authorize.
func (k *Kubernetes) AuthorizeUser(ctx context.Context, user *authenticationv1.UserInfo, access Access) error {
	if user == nil || user.Username == "" {
		return ErrUnauthenticated
	}
	hash, err := newUserHash(user)
	if err != nil {
		return err
	}
	known, ok := k.tokens.get(hash)
	if !ok {
		now := time.Now()
		known = knownToken{life{now, now.Add(allowedTTL)}, user}
		k.tokens.put(hash, tenantOf(user), known)
	}
	return k.permit(ctx, grant{hash, access}, known.user)
}

// newUserHash stands for all that is known of a user. No token is JSON, so none has the same hash.
func newUserHash(user *authenticationv1.UserInfo) (tokenHash, error) {
	text, err := json.Marshal(user) // with the keys of maps in order
	if err != nil {
		return tokenHash{}, fmt.Errorf("write the user down: %w", err)
	}
	return sha256.Sum256(text), nil
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

// authenticate returns the token's user.
func (k *Kubernetes) authenticate(ctx context.Context, hash tokenHash, token, source string) (*authenticationv1.UserInfo, error) {
	known, standing := k.knownToken(hash)
	verdict, _ := decide(standing, notAsked)
	var result outcome
	if verdict == ask {
		q := question{kind: "token", key: "token " + string(hash[:]), standing: standing, lane: k.lanes.known}
		if known.user != nil {
			q.source = tenantOf(known.user)
		} else {
			q.source = source
			if q.lane = k.laneFor(token, source); q.lane == nil {
				k.refusals.Add(hash, nil, deniedTTL)
				return nil, ErrUnauthenticated
			}
		}
		q.ask = func(ctx context.Context) (outcome, error) { return k.reviewToken(ctx, token) }
		q.learn = func(result *outcome, e effect) { k.learnToken(hash, known, token, result, e) }
		if known.user == nil {
			learn := q.learn
			q.learn = func(result *outcome, e effect) {
				if learn(result, e); e == keepYes {
					k.sources.Add(source, nil, provenTTL)
				}
			}
		}
		result = k.once(ctx, &q)
		verdict, _ = decide(standing, result.reply)
	}
	switch verdict {
	case admit:
		if result.user != nil {
			return result.user, nil
		}
		return known.user, nil
	case deny:
		return nil, ErrUnauthenticated
	default:
		return nil, verdictError(verdict, "review the token", result.err)
	}
}

// knownToken returns what is known of a token, and what it is worth.
func (k *Kubernetes) knownToken(hash tokenHash) (knownToken, standing) {
	if known, ok := k.tokens.get(hash); ok {
		if s := known.standing(time.Now(), k.outageGrace()); s != unasked {
			return known, s
		}
	}
	if _, ok := k.refusals.Get(hash); ok {
		return knownToken{}, refused
	}
	return knownToken{}, unasked
}

// laneFor returns the lane in which a token that was never seen is reviewed, nil if it cannot be valid.
func (k *Kubernetes) laneFor(token, source string) *lane {
	claims, ok := parseJWT(token)
	if !ok {
		return k.lanes.odd
	}
	if reason := claims.impossible(time.Now(), k.options.Issuers, k.options.Audiences); reason != "" {
		k.metrics.unasked.WithLabelValues(reason).Inc()
		return nil
	}
	if !k.issuers.likely(claims.Issuer) {
		return k.lanes.odd
	}
	if _, ok := k.sources.Get(source); ok {
		return k.lanes.proven
	}
	return k.lanes.tokens
}

// learnToken remembers what came of a review.
func (k *Kubernetes) learnToken(hash tokenHash, known knownToken, token string, result *outcome, e effect) {
	now := time.Now()
	switch e {
	case keepYes:
		if known.user != nil && reflect.DeepEqual(known.user, result.user) {
			result.user = known.user // the same session, with its grants
		}
		if claims, ok := parseJWT(token); ok && known.user == nil {
			k.issuers.add(claims.Issuer)
		}
		k.tokens.put(hash, tenantOf(result.user), knownToken{life{now, now.Add(allowedTTL)}, result.user})
	case keepNo:
		k.tokens.drop(hash)
		k.refusals.Add(hash, nil, deniedTTL)
	case prolong:
		known.life = known.prolonged(now, k.outageGrace())
		k.tokens.put(hash, tenantOf(known.user), known)
	case nothing:
	}
}

// tenantOf is whom a user's places and memory are counted to: a service account's namespace, or the user itself.
func tenantOf(user *authenticationv1.UserInfo) string {
	if rest, ok := strings.CutPrefix(user.Username, "system:serviceaccount:"); ok {
		namespace, _, _ := strings.Cut(rest, ":")
		return namespace
	}
	return "user " + user.Username
}

func (k *Kubernetes) reviewToken(ctx context.Context, token string) (outcome, error) {
	review, err := k.reviews.Tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: k.options.Audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return outcome{}, err
	}
	status := &review.Status
	if !status.Authenticated || status.User.Username == "" {
		return outcome{reply: no}, nil
	}
	// An authenticator that knows nothing of audiences leaves them out, and has not checked them.
	meant := slices.ContainsFunc(status.Audiences, func(audience string) bool { return slices.Contains(k.options.Audiences, audience) })
	if len(k.options.Audiences) > 0 && !meant {
		return outcome{reply: no}, nil
	}
	return outcome{reply: yes, user: &status.User}, nil
}

// permit returns nil if the session has the access that g names.
func (k *Kubernetes) permit(ctx context.Context, g grant, user *authenticationv1.UserInfo) error {
	known, standing := k.knownGrant(g, user)
	verdict, _ := decide(standing, notAsked)
	var result outcome
	if verdict == ask {
		q := question{
			kind: "access", standing: standing, lane: k.lanes.known, source: tenantOf(user),
			key:   strings.Join([]string{"access", string(g.token[:]), g.access.Verb, g.access.group(), g.access.Resource, g.access.Namespace, g.access.Name}, " "),
			ask:   func(ctx context.Context) (outcome, error) { return k.reviewAccess(ctx, g.access, user) },
			learn: func(_ *outcome, e effect) { k.learnGrant(g, known, user, e) },
		}
		if standing == unasked {
			q.lane = k.lanes.grants
		}
		result = k.once(ctx, &q)
		verdict, _ = decide(standing, result.reply)
	}
	switch verdict {
	case admit:
		return nil
	case deny:
		return &ForbiddenError{User: user.Username, Access: g.access}
	default:
		return verdictError(verdict, "review the access", result.err)
	}
}

// knownGrant returns what is known of a session's grant, and what it is worth.
func (k *Kubernetes) knownGrant(g grant, user *authenticationv1.UserInfo) (knownGrant, standing) {
	now := time.Now()
	if known, ok := k.grants.get(g); ok && known.user == user {
		if s := known.standing(now, k.outageGrace()); s != unasked {
			return known, s
		}
	}
	if d, ok := k.denials.get(g); ok && d.user == user && now.Before(d.until) {
		return knownGrant{}, refused
	}
	return knownGrant{}, unasked
}

// learnGrant remembers what came of a review.
func (k *Kubernetes) learnGrant(g grant, known knownGrant, user *authenticationv1.UserInfo, e effect) {
	now := time.Now()
	switch e {
	case keepYes:
		k.grants.put(g, tenantOf(user), knownGrant{life{now, now.Add(allowedTTL)}, user})
	case keepNo:
		k.grants.drop(g)
		k.denials.put(g, tenantOf(user), denial{now.Add(deniedTTL), user})
	case prolong:
		known.life = known.prolonged(now, k.outageGrace())
		k.grants.put(g, tenantOf(user), known)
	case nothing:
	}
}

func (k *Kubernetes) reviewAccess(ctx context.Context, access Access, user *authenticationv1.UserInfo) (outcome, error) {
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, values := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	resource, subresource, _ := strings.Cut(access.Resource, "/")
	review, err := k.reviews.Accesses.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: access.group(), Resource: resource, Subresource: subresource, Verb: access.Verb, Namespace: access.Namespace, Name: access.Name,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return outcome{}, err
	}
	if review.Status.Allowed && !review.Status.Denied {
		return outcome{reply: yes}, nil
	}
	return outcome{reply: no}, nil
}

// verdictError is the error of a request that is neither admitted nor denied.
func verdictError(v verdict, what string, cause error) error {
	if v == postpone {
		return fmt.Errorf("%s: %w", what, errors.Join(ErrBusy, cause))
	}
	return fmt.Errorf("%s: %w", what, cause)
}
