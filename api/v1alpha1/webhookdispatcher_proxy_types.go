package v1alpha1

// EgressProxy is a proxy that takes CONNECT. It may be reached whatever the rules for deliveries say.
type EgressProxy struct {
	// url is the proxy's scheme, host and port, such as http://proxy.example.com:3128. With https, the dispatcher speaks TLS to
	// the proxy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=270
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|[[][0-9a-fA-F:.]+[]]):([1-9][0-9]{0,4})$')",message="must be a scheme, a host and a port, such as http://proxy.example.com:3128"
	URL string `json:"url,omitempty"`

	// connect is what the proxy is asked for: Address for one of the host's addresses, which the dispatcher has looked up and
	// judged, or Host for the URL's host, which the proxy looks up anew and may judge by its own rules. With Host, the dispatcher
	// judges all addresses of the host before.
	// +optional
	// +kubebuilder:default=Address
	Connect ProxyConnect `json:"connect,omitempty"`

	// secretRef names a Secret in the dispatcher's namespace. Its keys username and password are shown to the proxy, and ca.crt has
	// the authorities, in PEM, that the proxy's certificate is signed by; each may be missing. A change is taken up within minutes.
	// +optional
	SecretRef SecretReference `json:"secretRef,omitzero"`
}

// ProxyConnect is what a proxy is asked for.
// +kubebuilder:validation:Enum=Address;Host
type ProxyConnect string

// What a proxy is asked for.
const (
	// ConnectAddress is an address that was judged.
	ConnectAddress ProxyConnect = "Address"
	// ConnectHost is the URL's host.
	ConnectHost ProxyConnect = "Host"
)
