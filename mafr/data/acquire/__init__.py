"""Raw data sets: downloads that resume, archives unpacked safely, samples counted."""
