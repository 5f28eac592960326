"""Raw data sets from nothing: downloads that resume, archives unpacked safely, samples counted."""
