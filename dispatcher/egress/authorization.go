package egress

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Authorization is how requests to a target authenticate: exactly one of its fields is set. It is immutable, and never
// logged.
type Authorization struct {
	Basic             *Basic
	Bearer            string
	APIKey            *APIKey
	ClientCredentials *ClientCredentials
}

// Basic is a user name and a password (RFC 7617).
type Basic struct{ User, Password string }

// APIKey is a key in a header of its own.
type APIKey struct{ Header, Key string }

// ClientCredentials fetch access tokens (RFC 6749, section 4.4).
type ClientCredentials struct {
	// TokenURL is absolute, http or https, and guarded as a target's.
	TokenURL, ClientID, ClientSecret string
	Scopes                           []string
	Audience                         string
	// InBody puts the credentials into the body of the request for a token, in place of its header.
	InBody bool
}

// addTo adds what never changes to a target's header. Its errors show no secret.
func (a *Authorization) addTo(header http.Header) error {
	if a == nil {
		return nil
	}
	set := 0
	name, value := headerAuthorization, ""
	if a.Basic != nil {
		set++
		if strings.Contains(a.Basic.User, ":") {
			return errors.New("a user name has no colon (RFC 7617, section 2)")
		}
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(a.Basic.User+":"+a.Basic.Password))
	}
	if a.Bearer != "" {
		set++
		value = "Bearer " + a.Bearer
	}
	if a.APIKey != nil {
		set++
		name, value = a.APIKey.Header, a.APIKey.Key
	}
	if a.ClientCredentials != nil {
		set++
	}
	switch {
	case set != 1:
		return errors.New("an authorization has exactly one kind")
	case !httpguts.ValidHeaderFieldName(name) || Reserved(name):
		return errors.New("the header of the API key is not one that a subscription may set")
	case !httpguts.ValidHeaderFieldValue(value):
		return errors.New("a secret of the authorization has a control character")
	}
	header.Del(name)
	if value != "" {
		header.Set(name, value)
	}
	return nil
}

// credentials are those that tokens are fetched with; nil if there are none.
func (a *Authorization) credentials() *ClientCredentials {
	if a == nil {
		return nil
	}
	return a.ClientCredentials
}
