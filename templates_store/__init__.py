"""What is kept between the work done ahead and the work done per request."""
