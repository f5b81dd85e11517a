package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// publicKeysPrefix begins the paths of public keys; the identity of a subscription follows, which in a cluster is its uid.
//
// Nobody is asked who they are. A public key is made to be given to anyone, and a receiver outside the cluster has no token of it. What
// must not be told is which tenants and subscriptions there are. So the path has the uid, which has 122 random bits and which those
// who may read the subscription hand on, and not a name, which anyone could try. A subscription without a pair is answered like one
// that does not exist.
//
// An answer costs no more than one that a client without a token gets anywhere else: a look into the table, by one hash. It depends on
// the table alone, so that proxies may keep it.
const publicKeysPrefix = "/v1/public-keys/"

// publicKeysAge is for how many seconds an answer may be kept. It is less than a rotation takes people between two steps.
const publicKeysAge = 60

// publicKey is a key as a receiver gets it.
type publicKey struct {
	ID        string `json:"id"`
	Scheme    string `json:"scheme"`
	PublicKey string `json:"publicKey"`
}

// routePublicKeys says what a request below publicKeysPrefix wants.
func routePublicKeys(r *http.Request, identity string) (call, error) {
	if identity == "" || strings.Contains(identity, "/") || r.URL.RawPath != "" { // without a cluster, an identity is a name
		return call{operation: opNone}, pathNotFound()
	}
	c := call{operation: opPublicKeys, identity: identity}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return c, newProblem(methodNotAllowed, "send GET to this path").with("Allow", http.MethodGet)
	}
	return c, nil
}

// publicKeys answers with the public keys by which a subscription's deliveries are verified now, in the order of their signatures.
func (h *Handler) publicKeys(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	table := h.options.Routes()
	if table == nil {
		return 0, newProblem(unavailable, "the dispatcher has not loaded its subscriptions yet; send the request again").retry(time.Second)
	}
	keys := publicKeysOf(table, c.identity)
	if len(keys) == 0 {
		return 0, newProblem(notFound, "there is no public key at this path: want %s and the metadata.uid of a WebhookSubscription that signs with a pair", publicKeysPrefix)
	}
	body, err := json.Marshal(struct {
		Keys []publicKey `json:"keys"`
	}{keys})
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(body)
	tag := strconv.Quote(hex.EncodeToString(sum[:8]))
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(publicKeysAge))
	w.Header().Set("Etag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return http.StatusNotModified, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n')) // a client that went has its answer no more
	}
	return http.StatusOK, nil
}

// publicKeysOf are those of the subscription with an identity; none while its deliveries wait.
func publicKeysOf(table *routing.Table, identity string) (all []publicKey) {
	route, found := table.Get(event.NewSubscriptionKey(identity))
	if !found || route.Identity != identity || route.Endpoint.Target == nil {
		return nil
	}
	for _, key := range route.Endpoint.Target.Keys {
		if public := key.Public(); public != "" {
			all = append(all, publicKey{ID: routing.PublicKeyID(public), Scheme: "v1a", PublicKey: public})
		}
	}
	return all
}

// matches reports whether If-None-Match (RFC 9110, section 13.1.2) has a tag. Proxies may have made it a weak one.
func matches(header, tag string) bool {
	return slices.ContainsFunc(strings.Split(header, ","), func(one string) bool {
		return strings.TrimPrefix(strings.TrimSpace(one), "W/") == tag
	})
}
