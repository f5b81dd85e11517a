//go:build !unix

package dispatcher

func keepToOwner() {}
