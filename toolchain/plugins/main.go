// Command bridge serves the docker, random and tls providers that the Pulumi
// SDKs of the same names talk to. It is one program with three names, the
// plugin's file name decides: the providers share most of their code, so one
// link and one copy on disk do for all.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// providers maps a plugin's name to its entry point.
var providers = map[string]func(){
	"docker": serveDocker,
	"random": serveRandom,
	"tls":    serveTLS,
}

func main() {
	name := strings.TrimPrefix(filepath.Base(os.Args[0]), "pulumi-resource-")
	serve, ok := providers[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "bridge: started as %q; install it as pulumi-resource-docker, -random or -tls\n", name)
		os.Exit(2)
	}
	serve()
}

// schema is the little of a provider's package schema that the engine asks for:
// the SDKs carry their own types, so resources need no description here.
func schema(name, version string) []byte {
	return fmt.Appendf(nil, `{"name":%q,"version":%q}`, name, version)
}
