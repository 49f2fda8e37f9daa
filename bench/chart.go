package main

import (
	"bytes"
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

var (
	blue  = color.RGBA{R: 0x1d, G: 0x63, B: 0xd8, A: 0xff}
	grey  = color.RGBA{R: 0x6b, G: 0x72, B: 0x80, A: 0xff}
	black = color.RGBA{R: 0x1f, G: 0x29, B: 0x37, A: 0xff}
)

// chart draws a bar for each subject, the fastest on top: the time for a new token, as a multiple of the bare
// verification.
func chart(c comparison) ([]byte, error) {
	var names, values []string
	var bars []float64
	for k := len(c.each) - 1; k >= 0; k-- {
		if m := c.each[k]; !strings.HasPrefix(m.name, "koreauth, ") { // the variants are only in the table
			names, values, bars = append(names, m.name), append(values, fmt.Sprintf("%.2f ×", m.ratio.median)), append(bars, m.ratio.median)
		}
	}

	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	plot.DefaultFont, plotter.DefaultFont = sans, sans
	p := plot.New()
	p.BackgroundColor = color.White // so that it can be read on a dark page, too
	p.Title.Text = "Guarding a request with a new token (" + c.algorithm + ")"
	p.Title.TextStyle.Font.Size = vg.Points(14)
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = "time, as a multiple of verifying only the signature (less is better)"
	p.X.Min = 0
	p.HideY()

	var starts, ends plotter.XYs
	for k, value := range bars {
		bar, err := plotter.NewBarChart(plotter.Values{value}, vg.Points(22))
		if err != nil {
			return nil, err
		}
		bar.Horizontal = true
		bar.XMin = float64(k)
		bar.LineStyle.Width = 0
		bar.Color = grey
		switch names[k] {
		case "koreauth":
			bar.Color = blue
		case "bare verification":
			bar.Color = black
		}
		p.Add(bar)
		starts = append(starts, plotter.XY{X: 0, Y: float64(k)})
		ends = append(ends, plotter.XY{X: value, Y: float64(k)})
		p.X.Max = max(p.X.Max, value*1.12) // room for the value
	}
	// A viewer with another font shows the words in another width. So each begins at a known place: the name at the
	// start of its bar, the value at the end.
	if err := label(p, starts, names, color.White); err != nil {
		return nil, err
	}
	if err := label(p, ends, values, black); err != nil {
		return nil, err
	}

	canvas := vgsvg.New(vg.Points(640), vg.Points(float64(76+30*len(bars))))
	p.Draw(draw.Crop(draw.New(canvas), vg.Points(10), -vg.Points(10), vg.Points(8), -vg.Points(8)))
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif")), nil
}

func label(p *plot.Plot, at plotter.XYs, words []string, c color.Color) error {
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: at, Labels: words})
	if err != nil {
		return err
	}
	for k := range labels.TextStyle {
		labels.TextStyle[k].Font.Size = vg.Points(12)
		labels.TextStyle[k].YAlign = text.YCenter
		labels.TextStyle[k].Color = c
	}
	labels.Offset = vg.Point{X: vg.Points(6)}
	p.Add(labels)
	return nil
}
