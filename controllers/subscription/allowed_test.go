package subscription

import "testing"

func TestSecretLabel(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flag      string
		labels    map[string]string
		want      bool
		wantError bool
	}{
		"none demanded":   {want: true},
		"the label":       {flag: "hooks.example.com/allowed=true", labels: map[string]string{"hooks.example.com/allowed": "true"}, want: true},
		"another value":   {flag: "allowed=true", labels: map[string]string{"allowed": "false"}},
		"no label":        {flag: "allowed=true"},
		"empty value":     {flag: "allowed=", labels: map[string]string{"allowed": ""}, want: true},
		"empty, no label": {flag: "allowed="},
		"no value":        {flag: "allowed", wantError: true},
		"no key":          {flag: "=true", wantError: true},
		"no label at all": {flag: "a b=c", wantError: true},
		"a bad value":     {flag: "allowed=a b", wantError: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			label, err := ParseSecretLabel(tt.flag)
			if (err != nil) != tt.wantError {
				t.Fatalf("error %v", err)
			}
			if err == nil && label.allows(tt.labels) != tt.want {
				t.Errorf("want allowed %t", tt.want)
			}
		})
	}
}
