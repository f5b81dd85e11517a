package dispatcher

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

func TestSecretRefused(t *testing.T) {
	t.Parallel()
	authority, err := postgrestest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	pem := string(authority.PEM())
	tests := map[string]struct {
		url, ca    string // "-" for a Secret without the key, "" for none
		withCA     bool
		wantReason string
		wantWords  string
	}{
		"a URL":                       {url: "postgres://app:canary@db/app"},
		"CloudNativePG's":             {url: "postgresql://app:canary@pg-rw.data:5432/app"},
		"several hosts":               {url: "postgres://app:canary@a:5432,b:5432/app?target_session_attrs=read-write"},
		"a socket":                    {url: "postgres:///app?host=/run/postgresql"},
		"no TLS, none asked for":      {url: "postgres://app:canary@db/app?sslmode=disable"},
		"no Secret":                   {url: "", wantReason: v1alpha1.ReasonSecretNotFound, wantWords: "no Secret db in namespace data: create it, with key uri"},
		"no key":                      {url: "-", wantReason: v1alpha1.ReasonSecretKeyMissing, wantWords: "Secret db has no key uri"},
		"no URL":                      {url: "host=db password=canary", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "postgres://user:password@host/database"},
		"another database's":          {url: "mysql://app:canary@db/app", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "postgres://"},
		"nothing behind it":           {url: "postgres://", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "postgres://"},
		"a line break":                {url: "postgres://app:canary@db/app\n", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has a line feed (U+000A) at its end"},
		"a space":                     {url: "postgres://app:ca nary@db/app", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has a space"},
		"a no-break space":            {url: "postgres://app:canary@db/app\u00a0", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has a no-break space (U+00A0) at its end"},
		"a byte order mark":           {url: "\ufeffpostgres://app:canary@db/app", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has a byte order mark (U+FEFF) at its beginning"},
		"a zero width space":          {url: "postgres://app:canary@d\u200bb/app", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has a zero width space (U+200B) inside"},
		"a mark before certificates":  {url: "postgres://app:canary@db/app", withCA: true, ca: "\ufeff" + pem + pem, wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "has 1 of 2 certificates that cannot be read"},
		"broken parameters":           {url: "postgres://app:canary@db/app?x=%zz", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "parameters"},
		"verified":                    {url: "postgres://app:canary@db/app", withCA: true, ca: pem},
		"verified, and it says so":    {url: "postgres://app:canary@db/app?sslmode=verify-full", withCA: true, ca: pem},
		"verified without the name":   {url: "postgres://app:canary@db/app?sslmode=verify-ca", withCA: true, ca: pem},
		"not verified, but asked for": {url: "postgres://app:canary@db/app?x=1&sslmode=prefer", withCA: true, ca: pem, wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "sslmode"},
		"verified by other ones":      {url: "postgres://app:canary@db/app?sslmode=verify-full&sslrootcert=/etc/canary.crt", withCA: true, ca: pem, wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "sslrootcert"},
		"other ones alone":            {url: "postgres://app:canary@db/app?sslmode=verify-full&sslrootcert=system"},
		"no Secret of certificates":   {url: "postgres://app:canary@db/app", withCA: true, wantReason: v1alpha1.ReasonSecretNotFound, wantWords: "caSecretRef: there is no Secret ca"},
		"no key of certificates":      {url: "postgres://app:canary@db/app", withCA: true, ca: "-", wantReason: v1alpha1.ReasonSecretKeyMissing, wantWords: "Secret ca has no key ca.crt"},
		"certificates that are none":  {url: "postgres://app:canary@db/app", withCA: true, ca: "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "PEM"},
		"no certificates":             {url: "postgres://app:canary@db/app", withCA: true, ca: "canary", wantReason: v1alpha1.ReasonSecretKeyInvalid, wantWords: "PEM"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			postgres := database(test.withCA)
			values := map[string]string{"db": test.url, "ca": test.ca}
			var reason, message string
			for _, ref := range secretRefs(postgres) {
				var failed bool
				if reason, message, failed = secretRefused(ref, "data", secretOf(ref.Key, values[ref.Name])); failed != (reason != "") {
					t.Errorf("failed is %t with reason %q", failed, reason)
				}
				if failed {
					break
				}
			}
			if reason != test.wantReason || !strings.Contains(message, test.wantWords) {
				t.Errorf("%s %q, want %s with %q", reason, message, test.wantReason, test.wantWords)
			}
			if strings.Contains(message, "canary") {
				t.Errorf("the message holds what the Secret does: %q", message)
			}
		})
	}
}

func database(verified bool) *v1alpha1.PostgresStore {
	postgres := &v1alpha1.PostgresStore{ConnectionSecretRef: v1alpha1.SecretKeyReference{Name: "db", Key: "uri"}}
	if verified {
		postgres.CASecretRef = &v1alpha1.SecretKeyReference{Name: "ca", Key: "ca.crt"}
	}
	return postgres
}

// secretOf has a value at a key, or nothing for "-"; it is nil for "".
func secretOf(key, value string) *corev1.Secret {
	switch value {
	case "":
		return nil
	case "-":
		return &corev1.Secret{}
	default:
		return &corev1.Secret{Data: map[string][]byte{key: []byte(value)}}
	}
}
