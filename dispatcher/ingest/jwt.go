package ingest

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// clockLeeway is how far the clock of a token's issuer may differ from this one.
	clockLeeway = 2 * time.Minute
	// maxIssuers bounds the issuers that are remembered.
	maxIssuers = 16
)

// claims are those of a JSON Web Token (RFC 7519, section 4.1) by which it can be told that a token is not valid.
type claims struct {
	Issuer    string   `json:"iss"`
	Audience  audience `json:"aud"`
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
}

// audience is one text or an array of texts.
type audience []string

// UnmarshalJSON reads either.
func (a *audience) UnmarshalJSON(text []byte) error {
	var one string
	if err := json.Unmarshal(text, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// parseJWT returns the claims of a token that has the shape of a signed JSON Web Token (RFC 7515, section 7.1). Nothing
// is verified.
func parseJWT(token string) (c claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return c, false
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	if !decodePart(parts[0], &header) || header.Algorithm == "" || !decodePart(parts[1], &c) {
		return c, false
	}
	_, err := base64.RawURLEncoding.DecodeString(parts[2])
	return c, err == nil
}

func decodePart(part string, into any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, into) == nil
}

// impossible says why the API server will not take a token with these claims, or "".
func (c *claims) impossible(now time.Time, issuers, audiences []string) string {
	switch {
	case c.Expires != nil && *c.Expires < float64(now.Add(-clockLeeway).Unix()):
		return "expired"
	case c.NotBefore != nil && *c.NotBefore > float64(now.Add(clockLeeway).Unix()):
		return "not_yet_valid"
	case len(issuers) > 0 && !slices.Contains(issuers, c.Issuer):
		return "issuer"
	case len(audiences) > 0 && len(c.Audience) > 0 && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(audiences, a) }):
		return "audience"
	}
	return ""
}

// issuers are those of tokens that the API server took. A cluster may have others, too, so none is refused for not being
// among them.
type issuers struct {
	mu   sync.RWMutex
	seen []string
}

func (i *issuers) add(issuer string) {
	if i.likely(issuer) && i.known() {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.seen) < maxIssuers && !slices.Contains(i.seen, issuer) {
		i.seen = append(i.seen, issuer)
	}
}

func (i *issuers) known() bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.seen) > 0
}

// likely reports whether tokens of the issuer were taken, or none was taken at all yet.
func (i *issuers) likely(issuer string) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return len(i.seen) == 0 || slices.Contains(i.seen, issuer)
}
