package simulation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// keyring is the folder of the keys that encrypt the store, "" if nothing is encrypted. It is one of the real file system,
// as are the seeds in it: no disk of this world.
type keyring struct {
	folder string
	newest int
}

func newKeyring(sealed bool, folder string) (*keyring, error) {
	if !sealed {
		return &keyring{}, nil
	}
	k := &keyring{folder: filepath.Join(folder, "keys")}
	return k, errors.Join(os.Mkdir(k.folder, 0o700), k.change())
}

// change makes another key the current one. Those before stay.
func (k *keyring) change() error {
	if k.folder == "" {
		return nil
	}
	k.newest++
	name := fmt.Sprint("key-", k.newest)
	text := strings.Repeat(string(rune('a'+k.newest%26)), 32)
	return errors.Join(
		os.WriteFile(filepath.Join(k.folder, name), []byte(text), 0o600),
		os.WriteFile(filepath.Join(k.folder, "current.new"), []byte(name), 0o600),
		os.Rename(filepath.Join(k.folder, "current.new"), filepath.Join(k.folder, "current")),
	)
}
