package v1alpha1

// ServiceReference names a port of a Service in the subscription's namespace. Deliveries go to the Service's cluster IPs at
// this port, and to nothing else. The Service has a selector: one whose endpoints are written by hand, one without a cluster
// IP, and one of type ExternalName are refused.
type ServiceReference struct {
	// name of the Service. Host and the name that the certificate must have are NAME.NAMESPACE.svc.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="must be the name of a Service: lower-case letters, digits and dashes"
	Name string `json:"name,omitempty"`

	// port of the Service, which may be another than that of its pods.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// path of the URL, and its query if there is one.
	// +optional
	// +kubebuilder:default="/"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^/([-._~!$&\\'()*+,;=:@/?a-zA-Z0-9]|%[0-9a-fA-F]{2})*$')",message="must begin with a slash, and have no character that a URL escapes"
	Path string `json:"path,omitempty"`

	// scheme is HTTPS, or HTTP where the dispatcher's spec.egress.allowHTTP allows it.
	// +optional
	// +kubebuilder:default=HTTPS
	Scheme ServiceScheme `json:"scheme,omitempty"`
}

// ServiceScheme is how a Service is spoken to.
// +kubebuilder:validation:Enum=HTTPS;HTTP
type ServiceScheme string

// The schemes.
const (
	// ServiceHTTPS is HTTP over TLS.
	ServiceHTTPS ServiceScheme = "HTTPS"
	// ServiceHTTP is HTTP without TLS.
	ServiceHTTP ServiceScheme = "HTTP"
)
