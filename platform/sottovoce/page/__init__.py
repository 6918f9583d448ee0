"""What all of our HTML pages share: the frame, the style, pictures and how numbers are written."""
