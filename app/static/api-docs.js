// Starts the viewer of /api/docs. In a file of its own, so that the page needs no inline script.
SwaggerUIBundle({
  url: document.getElementById("viewer").dataset.url,
  dom_id: "#viewer",
  deepLinking: true,
  validatorUrl: null,
});
