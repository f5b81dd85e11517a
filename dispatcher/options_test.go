package dispatcher

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := []string{"--routes=" + dir, "--store=pebble:" + dir, "--ingest-auth=none"}
	for name, test := range map[string]struct {
		args      []string
		wantError string // a part of it; "" for none
	}{
		"good":               {nil, ""},
		"routes kubernetes":  {[]string{"--routes=kubernetes"}, ""},
		"no routes":          {[]string{"--routes="}, "--routes is missing"},
		"routes no folder":   {[]string{"--routes=" + dir + "/absent"}, "existing folder"},
		"no store":           {[]string{"--store="}, "--store"},
		"store without dir":  {[]string{"--store=pebble:"}, "--store"},
		"other store":        {[]string{"--store=redis://x"}, "--store"},
		"postgres":           {[]string{"--store=postgres://u:p@h/d"}, ""},
		"postgresql":         {[]string{"--store=postgresql://u:p@h/d"}, ""},
		"ingest auth":        {[]string{"--ingest-auth=basic"}, "--ingest-auth"},
		"half a certificate": {[]string{"--tls-cert-file=a"}, "--tls-key-file"},
		"plain beside TLS":   {[]string{"--tls-cert-file=a", "--tls-key-file=b", "--plain-listen=:8080"}, ""},
		"plain alone":        {[]string{"--plain-listen=:8080"}, "--plain-listen"},
		"clients":            {[]string{"--ingest-auth=kubernetes", "--tls-cert-file=a", "--tls-key-file=b", "--ingest-client-ca-file=c"}, ""},
		"clients, no TLS":    {[]string{"--ingest-auth=kubernetes", "--ingest-client-ca-file=c"}, "--ingest-client-ca-file"},
		"clients of none":    {[]string{"--ingest-auth=none", "--tls-cert-file=a", "--tls-key-file=b", "--ingest-client-ca-file=c"}, "--ingest-client-ca-file"},
		"audit":              {[]string{"--audit-level=All", "--audit-file=/audit/trail"}, ""},
		"audit level":        {[]string{"--audit-level=Everything"}, "--audit-level"},
		"audiences":          {[]string{"--ingest-auth=kubernetes", "--ingest-audience=a,b"}, ""},
		"audiences of none":  {[]string{"--ingest-auth=none", "--ingest-audience=a"}, "--ingest-audience"},
		"a proxy":            {[]string{"--egress-proxy=https://[::1]:3128", "--egress-proxy-connect=Host", "--egress-proxy-secrets=a"}, ""},
		"a proxy's password": {[]string{"--egress-proxy=http://me:c4n4ry@proxy:3128"}, "--egress-proxy-secrets"},
		"a proxy's port":     {[]string{"--egress-proxy=http://proxy"}, "--egress-proxy"},
		"a proxy's scheme":   {[]string{"--egress-proxy=socks5://proxy:1080"}, "--egress-proxy"},
		"a proxy's path":     {[]string{"--egress-proxy=http://proxy:3128/x"}, "--egress-proxy"},
		"asked of a proxy":   {[]string{"--egress-proxy=http://proxy:3128", "--egress-proxy-connect=Name"}, "--egress-proxy-connect"},
		"secrets of none":    {[]string{"--egress-proxy-secrets=a"}, "--egress-proxy"},
		"allowed range":      {[]string{"--egress-allow-cidr=10.0.0.0"}, "--egress-allow-cidr"},
		"denied range":       {[]string{"--egress-deny-cidr=x/8"}, "--egress-deny-cidr"},
		"version of TLS":     {[]string{"--egress-min-tls-version=VersionTLS11"}, "--egress-min-tls-version"},
		"TLS 1.3":            {[]string{"--egress-min-tls-version=VersionTLS13"}, ""},
		"ranges":             {[]string{"--egress-allow-cidr=10.0.0.0/8,fd00::/8", "--egress-deny-cidr=10.1.0.0/16"}, ""},
		"resource":           {[]string{"--event-resource=Claim"}, "--event-resource"},
		"retention":          {[]string{"--retention-failed=1s"}, "--retention-failed"},
		"outage grace":       {[]string{"--ingest-outage-grace=6m"}, "--ingest-outage-grace"},
		"no outage grace":    {[]string{"--ingest-outage-grace=0s"}, ""},
		"connections":        {[]string{"--max-connections=-1"}, "--max-connections"},
		"in flight":          {[]string{"--max-in-flight=-1"}, "--max-in-flight"},
		"limits": {[]string{
			"--max-connections=2000", "--max-memory=1073741824", "--quota-events-per-second=100", "--quota-events-burst=500", "--quota-pending-bytes=1073741824",
			"--quota-pending-deliveries=100000", "--quota-attempts-in-flight=64", "--ingest-outage-grace=0s", "--egress-allow-port=25", "--egress-allow-port=853",
		}, ""},
		"hosts":             {[]string{"--ingest-host=events.example.com,hooks", "--ingest-host=a.b"}, ""},
		"host with port":    {[]string{"--ingest-host=events.example.com:8080"}, "--ingest-host"},
		"host, upper":       {[]string{"--ingest-host=Events.example.com"}, "--ingest-host"},
		"store, odd":        {[]string{"--store=postgres://u:p@h/d\u00a0"}, "--store has a no-break space (U+00A0) at its end"},
		"memory":            {[]string{"--max-memory=-1"}, "--max-memory"},
		"quota":             {[]string{"--quota-pending-bytes=-1"}, "--quota-pending-bytes"},
		"negative grace":    {[]string{"--ingest-outage-grace=-1s"}, "--ingest-outage-grace"},
		"encryption":        {[]string{"--encryption-keys=/keys"}, ""},
		"keys with data":    {[]string{"--encryption-keys=" + dir + "/keys"}, "--encryption-keys"},
		"keys are data":     {[]string{"--encryption-keys=" + dir + "/../" + filepath.Base(dir)}, "--encryption-keys"},
		"keys in state":     {[]string{"--state-dir=/state", "--encryption-keys=/state/keys"}, "--encryption-keys"},
		"seeds in data":     {[]string{"--encryption-keys=/keys", "--encryption-seeds=" + dir}, "--encryption-seeds"},
		"keys beside":       {[]string{"--encryption-keys=" + dir + "-keys"}, ""},
		"seeds in Secrets":  {[]string{"--routes=kubernetes", "--encryption-keys=/keys", "--encryption-seeds=kubernetes"}, ""},
		"seeds, no cluster": {[]string{"--encryption-keys=/keys", "--encryption-seeds=kubernetes"}, "--routes=kubernetes"},
		"seeds alone":       {[]string{"--encryption-seeds=/seeds"}, "--encryption-keys"},
		"deliveries":        {[]string{"--ingest-auth=kubernetes", "--deliveries-listen=:8443", "--deliveries-tls-cert-file=a", "--deliveries-tls-key-file=b"}, ""},
		"deliveries, half a certificate": {
			[]string{"--ingest-auth=kubernetes", "--deliveries-listen=:8443", "--deliveries-tls-cert-file=a"}, "--deliveries-tls-key-file",
		},
		"deliveries, no certificate": {[]string{"--ingest-auth=kubernetes", "--deliveries-listen=:8443"}, "--deliveries-tls-cert-file"},
		"deliveries, no cluster":     {[]string{"--deliveries-listen=:8443", "--deliveries-tls-cert-file=a", "--deliveries-tls-key-file=b"}, "--ingest-auth=kubernetes"},
		"deliveries, certificate alone": {
			[]string{"--deliveries-tls-cert-file=a", "--deliveries-tls-key-file=b"}, "--deliveries-listen",
		},
		"port": {[]string{"--egress-allow-port=65536"}, "--egress-allow-port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o Options
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			o.AddFlags(flags)
			if err := flags.Parse(append(good[:3:3], test.args...)); err != nil {
				t.Fatal(err)
			}
			_, err := o.check()
			if test.wantError == "" && err != nil || test.wantError != "" && (err == nil || !strings.Contains(err.Error(), test.wantError)) {
				t.Errorf("got %v, want %q", err, test.wantError)
			}
		})
	}
}
