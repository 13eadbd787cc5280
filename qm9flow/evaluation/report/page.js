/* Draws each figure when it comes near the window: a page of many opens at once. */
(function () {
  "use strict";
  var trials = JSON.parse(document.getElementById("trials").textContent);
  var options = {
    responsive: true,
    displaylogo: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: [
      "lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d",
      "sendChartToCloud", "resetCameraLastSave3d", "tableRotation",
    ],
  };

  function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    var figure = JSON.parse(place.querySelector("script").textContent);
    figure.data.forEach(function (trace) {
      if (trace.meta !== "trials") return;
      trace.text = trace.customdata.map(function (number) { return trials[number]; });
    });
    if (window.innerWidth < 600) {
      options.displayModeBar = false;
      figure.layout.dragmode = false; // a finger moves the page
      if ((figure.layout.xaxis || {}).dtick === "D2") figure.layout.xaxis.dtick = 1;
    }
    Plotly.newPlot(place, figure.data, figure.layout, options);
  }

  var places = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  window.addEventListener("beforeprint", function () { places.forEach(draw); });
  if (!("IntersectionObserver" in window)) return places.forEach(draw);
  var watch = new IntersectionObserver(function (seen) {
    seen.forEach(function (entry) {
      if (!entry.isIntersecting) return;
      watch.unobserve(entry.target);
      draw(entry.target);
    });
  }, { rootMargin: "800px" });
  places.forEach(function (place) { watch.observe(place); });
})();
