//go:build tools

// Package tools keeps the program in the module's requirements.
package tools

import _ "github.com/docker/compose/v2/cmd"
