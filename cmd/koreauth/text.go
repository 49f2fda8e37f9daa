package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/koreauth/koreauth/internal/explain"
)

// width is the maximum number of columns of a line for people.
const width = 80

// printWrapped prints a text in lines of at most width columns. The first one begins
// with first, the others begin with rest.
func printWrapped(out io.Writer, first, rest, text string) error {
	columns := width - max(explain.Columns(first), explain.Columns(rest))
	for n, line := range explain.Wrap(text, columns) {
		if n > 0 {
			first = rest
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(first+line, " ")); err != nil {
			return err
		}
	}
	return nil
}

// firstColumn is the indentation of a line of help, or its flag and the space after it.
var firstColumn = regexp.MustCompile(`^ +(?:-.*?\S {2,})?`)

func init() {
	// The wrapping of the library does not know how wide the column of the flags is.
	cli.HelpPrinter = func(out io.Writer, template string, data any) {
		var help bytes.Buffer
		cli.DefaultPrintHelp(&help, template, data)
		for line := range strings.Lines(help.String()) {
			first := firstColumn.FindString(line)
			_ = printWrapped(out, first, strings.Repeat(" ", explain.Columns(first)), line[len(first):])
		}
	}
}
