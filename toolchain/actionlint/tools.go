//go:build tools

// Package tools keeps the program in the module's requirements.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
