// Starts Swagger UI with the description that this server gives of itself. Nothing is asked of any other server, and a token is
// forgotten with the page.
"use strict";
SwaggerUIBundle({
	url: location.pathname.replace(/(docs|swagger|api\/v1\/swagger)\/[^/]*$/, "openapi.json"),
	dom_id: "#swagger",
	layout: "BaseLayout",
	validatorUrl: null,
	persistAuthorization: false,
	docExpansion: "none",
	deepLinking: true,
});
